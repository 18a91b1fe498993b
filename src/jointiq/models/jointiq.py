"""JointIQ-Net: image compression I and quality enhancement Q, trained jointly.

Lee, Cho, Kim: "An End-to-End Joint Learning Scheme of Image Compression and Quality Enhancement with Improved Entropy
Minimization", 2019. Without its additions (G = 1, no global context, no MPRM, no enhancer) it is the base model of Lee,
Cho, Beack: "Context-adaptive Entropy Model for End-to-end Optimized Image Compression", ICLR 2019.

                     I                                                          Q
    x --> g_a --> y --> round --> y_hat ------------------> g_s --> x_mid --> GRDN --> x_hat
                                   |  |
                                   |  +--> known 4x4 window c''  --+
                                   |  +--> global context c'''   --+--> f (+ MPRM) --> mixture of G Gaussians p(y_hat)
                                  h_a                              |
                                   |                               |
                                   +--> z --> round --> z_hat --> h_s --> c' 4x4 window
                                                          |
                                                    p(z_hat): zero-mean Gaussian a channel

Images are [0, 1] at the API and [-1, 1] in the networks. I hands x_mid to Q neither clamped nor rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from compressai.registry import register_model
from torch import Tensor

from jointiq.bitstream.scan import get_scan
from jointiq.enhancers import build_enhancer
from jointiq.entropy_models.gaussian_mixture import log_likelihood, parameter_kinds
from jointiq.entropy_models.integer.context import ExactEntropyModel
from jointiq.entropy_models.integer.float_twin import restore_float_twin
from jointiq.entropy_models.zero_mean_gaussian import ZeroMeanGaussian
from jointiq.errors import ConfigError
from jointiq.layers.estimator import ParameterEstimator
from jointiq.layers.global_context import MAX_K, GlobalContext
from jointiq.layers.padding import Size, pyramid
from jointiq.layers.quantize import add_uniform_noise, round_ste
from jointiq.layers.transforms import AnalysisTransform, HyperAnalysis, HyperSynthesis, SynthesisTransform
from jointiq.models.base import Cut, Latents, output
from jointiq.models.exact_codec import ExactCodec

CONDITIONS = ("rounded", "noisy")


@register_model("jointiq")
class JointIQNet(ExactCodec):
    """JointIQ-Net and, with parts switched off, its ablations. What is switched off is not instantiated.

    Args:
        N, M: channels of the transforms and of y (Table 1).
        G: Gaussians of the mixture, 3 in the paper; 1 is the single-Gaussian ablation.
        global_context: use c''' (needs ``mprm``, which is what reads it).
        mprm: refine the parameters with MPRM.
        scan: ``raster`` or ``wavefront``: order of coding, and so what the global context knows.
        K, min_known: reach of the trained weights of the global context; positions it needs before it is used.
        hyper_abs: h_a reads |y_hat| (Lee 2019) instead of y_hat.
        hyper_exp: h_s ends with an exponential (Lee 2019).
        estimator_width, mprm_width: hidden channels of f and MPRM in multiples of M (our choice).
        enhancer: config of Q (see :func:`jointiq.enhancers.build_enhancer`); None leaves Q out.
        conditions: what g_s, h_s and the contexts read in training: ``rounded`` latents, or ``noisy`` ones (Lee 2019,
            appendix 6.2; h_a then reads y as it is). Not part of ``config``: a trained model works the same.

    Raises:
        ConfigError: a value that is not allowed.
    """

    SHAPELESS: ClassVar[tuple[str, ...]] = ("scan", "min_known", "hyper_abs", "hyper_exp")
    #: The integer twin of the entropy model.
    EXACT: ClassVar[type[ExactEntropyModel]] = ExactEntropyModel

    def __init__(
        self,
        N: int,
        M: int,
        G: int = 3,
        global_context: bool = True,
        mprm: bool = True,
        scan: str = "wavefront",
        K: int = 7,
        min_known: int = 30,
        hyper_abs: bool = False,
        hyper_exp: bool = False,
        estimator_width: int = 2,
        mprm_width: int = 2,
        enhancer: Mapping[str, Any] | None = None,
        conditions: str = "rounded",
    ) -> None:
        super().__init__()
        self.forget()
        limits = {"N": (N, 1), "M": (M, 1), "G": (G, 1), "K": (K, 2), "min_known": (min_known, 2)}
        limits |= {"estimator_width": (estimator_width, 1), "mprm_width": (mprm_width, 1)}
        for key, (value, smallest) in limits.items():
            if not isinstance(value, int) or value < smallest:
                raise ConfigError(f"model.{key}", value, f"a whole number from {smallest} up")
        if K > MAX_K:
            raise ConfigError("model.K", K, f"2 to {MAX_K}")
        if global_context and not mprm:
            raise ConfigError(
                "model.mprm", mprm, "true with model.global_context=true, because MPRM is what reads the global context"
            )
        if conditions not in CONDITIONS:
            raise ConfigError("model.conditions", conditions, CONDITIONS)
        self.config = {
            "name": "jointiq",
            "N": N,
            "M": M,
            "G": G,
            "global_context": global_context,
            "mprm": mprm,
            "scan": scan,
            "K": K,
            "min_known": min_known,
            "hyper_abs": hyper_abs,
            "hyper_exp": hyper_exp,
            "estimator_width": estimator_width,
            "mprm_width": mprm_width,
            "enhancer": None if enhancer is None else dict(enhancer),
        }
        self.G = G
        self.hyper_abs = hyper_abs
        self.conditions = conditions
        self.scan = get_scan(scan)

        self.g_a = AnalysisTransform(N, M)
        self.g_s = SynthesisTransform(N, M)
        self.h_a = HyperAnalysis(N, M)
        self.h_s = HyperSynthesis(N, M, exp=hyper_exp)
        self.z_prior = ZeroMeanGaussian(N)
        self.global_context = GlobalContext(M, K, min_known, self.scan) if global_context else None
        self.estimator = ParameterEstimator(
            M, parameter_kinds(G) * G * M, estimator_width, mprm_width if mprm else None, global_context
        )
        self.enhancer = build_enhancer(enhancer)
        # The layout in which convolutions run a third faster on CPUs, and fastest on tensor cores.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, cut: Cut | None = None) -> dict[str, Any]:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        log_likelihoods, y_hat = self.entropy_forward(self.g_a(2 * x - 1).float())
        x_hat, x_mid = self.reconstruct(y_hat, (x.shape[-2], x.shape[-1]), cut)
        return output(x_hat, x_mid, log_likelihoods)

    def entropy_forward(self, y: Tensor) -> tuple[Latents, Tensor]:
        """Log-likelihoods of y (B, M, h, w), float32, not rounded, and of its z, in nats; and y_hat as g_s reads it."""
        y_tilde, y_hat = self._quantise(y)
        z_tilde, z_hat = self._quantise(self._hyper_analysis(y))
        return {"y": self.y_log_likelihood(y_tilde, y_hat, z_hat), "z": self.z_prior(z_tilde)}, y_hat

    def _quantise(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """A latent as its rate reads it (noisy in training, otherwise rounded), and as everything else reads it."""
        if not self.training:
            return (rounded := round_ste(latent)), rounded
        noisy = add_uniform_noise(latent)
        return noisy, noisy if self.conditions == "noisy" else round_ste(latent)

    def _hyper_analysis(self, y: Tensor) -> Tensor:
        """z of y, float32; that of the rounded y, but in training on noisy conditions."""
        seen = y if self.training and self.conditions == "noisy" else round_ste(y)
        return self.h_a(self.to_float(seen.abs() if self.hyper_abs else seen)).float()

    def analyse(self, x: Tensor) -> Latents:
        """As in :class:`jointiq.models.base.LearnedCodec`; z is that of the rounded y."""
        y = self.g_a(2 * x - 1).float()
        return {"z": self._hyper_analysis(y), "y": y}

    def y_log_likelihood(self, y: Tensor, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """Log-likelihood of y, in nats, given the contexts that y_hat and z_hat make."""
        return log_likelihood(y, self.mixture_parameters(y_hat, z_hat), self.G)

    def mixture_parameters(self, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """Mixture parameters of every position from its contexts c', c'', c''' (all positions at once)."""
        c_prime = self.h_s(z_hat, (y_hat.shape[-2], y_hat.shape[-1]))
        c_global = None if self.global_context is None else self.global_context(y_hat)
        return self.estimator(c_prime, y_hat, c_global)

    def reconstruct(self, y_hat: Tensor, size: Size, cut: Cut | None = None) -> tuple[Tensor, Tensor]:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        return self.enhanced(self.g_s(y_hat, size), cut)

    def log_likelihoods(self, latents: Latents) -> Latents:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        y_hat, z_hat = latents["y"], latents["z"]
        return {"y": self.y_log_likelihood(y_hat, y_hat, z_hat), "z": self.z_prior(z_hat)}

    @property
    def scan_code(self) -> int:
        """The order of coding, as a file names it."""
        return self.scan.code

    def latent_shape(self, size: Size) -> Size:
        """Height and width of z."""
        return pyramid(size, 6)[6]

    def quantise_entropy_model(self) -> ExactEntropyModel:
        """As in :class:`jointiq.models.exact_codec.ExactCodec`."""
        return self.EXACT.quantise(self)

    def restore_exact(self, tensors: dict[str, Tensor]) -> None:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        self.use_exact(self.EXACT(self.config, tensors))
        restore_float_twin(self, tensors)
