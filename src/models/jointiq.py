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

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from compressai.models import CompressionModel
from compressai.registry import register_model
from torch import Tensor

from src.bitstream.container import pack_varint, unpack_varint
from src.bitstream.scan import get_scan
from src.enhancers import build_enhancer
from src.entropy_models.exact import ExactEntropyModel
from src.entropy_models.gaussian_mixture import log_likelihood, parameter_kinds
from src.entropy_models.zero_mean_gaussian import ZeroMeanGaussian
from src.errors import BitstreamError, ConfigError, DataError
from src.layers.estimator import ParameterEstimator
from src.layers.global_context import MAX_K, GlobalContext
from src.layers.padding import pyramid
from src.layers.quantize import add_uniform_noise, round_ste
from src.layers.transforms import AnalysisTransform, HyperAnalysis, HyperSynthesis, SynthesisTransform

# Only for the `likelihoods` that are returned; the loss reads the unfloored logarithms.
LIKELIHOOD_FLOOR = 1e-9


@register_model("jointiq")
class JointIQNet(CompressionModel):
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
        enhancer: config of Q (see :func:`src.enhancers.build_enhancer`); None leaves Q out.

    Raises:
        ConfigError: a value that is not allowed.
    """

    _exact: ExactEntropyModel | None
    cached_fingerprint: bytes | None

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
    ) -> None:
        super().__init__()
        self._forget_exact()
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
        self.config: dict[str, Any] = {
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

    def forward(self, x: Tensor, cut: Callable[[Tensor], Tensor] | None = None) -> dict[str, Any]:
        """Reconstruct and estimate the rate.

        Args:
            x: (B, 3, H, W) in [0, 1], any size from 1x1 up.
            cut: what Q is to see of x_mid, where that is not all of it (a training on crops, section 5).

        Returns:
            ``x_hat``, ``x_mid``: output of Q and of I, (B, 3, H, W), [0, 1] scale, not clamped; x_hat of the cut.
            ``likelihoods``, ``log_likelihoods``: of ``y`` (B, M, h, w) and ``z`` (B, N, ...); the first floored at
            1e-9, the second not, in nats. Noisy latents in training mode, rounded ones otherwise.
        """
        y, z = self.analyse(x)
        y_hat, z_hat = round_ste(y), round_ste(z)
        parameters = self.mixture_parameters(y_hat, z_hat)
        log_likelihoods = {
            "y": log_likelihood(add_uniform_noise(y) if self.training else y_hat, parameters, self.G),
            "z": self.z_prior(add_uniform_noise(z) if self.training else z_hat),
        }
        x_hat, x_mid = self.reconstruct(y_hat, (x.shape[-2], x.shape[-1]), cut)
        return {
            "x_hat": x_hat,
            "x_mid": x_mid,
            "likelihoods": {key: value.exp().clamp(min=LIKELIHOOD_FLOOR) for key, value in log_likelihoods.items()},
            "log_likelihoods": log_likelihoods,
        }

    def analyse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y (B, M, h, w) and z (B, N, ...) of images in [0, 1], float32, not rounded; z is that of the rounded y."""
        y = self.g_a(2 * x - 1).float()
        y_hat = round_ste(y)
        return y, self.h_a((y_hat.abs() if self.hyper_abs else y_hat).to(x.dtype)).float()

    def mixture_parameters(self, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """Mixture parameters of every position from its contexts c', c'', c''' (all positions at once)."""
        c_prime = self.h_s(z_hat, (y_hat.shape[-2], y_hat.shape[-1]))
        c_global = None if self.global_context is None else self.global_context(y_hat)
        return self.estimator(c_prime, y_hat, c_global)

    def reconstruct(
        self, y_hat: Tensor, size: tuple[int, int], cut: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """x_hat (of the ``cut`` of x_mid, where one is given) and x_mid, (B, 3, *size) in [0, 1] scale, not clamped."""
        mid = self.g_s(y_hat, size)
        seen = mid if cut is None else cut(mid)
        out = seen if self.enhancer is None else self.enhancer(seen)
        return (out + 1) / 2, (mid + 1) / 2

    def latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The rounded y_hat and z_hat that are coded for images in [0, 1].

        Raises:
            DataError: they are not finite.
        """
        y, z = self.analyse(x)
        if not bool(torch.isfinite(y).all() and torch.isfinite(z).all()):
            raise DataError("the model gives no finite latents for this image; its weights are damaged or diverged")
        return torch.round(y), torch.round(z)

    def log_likelihoods(self, y_hat: Tensor, z_hat: Tensor) -> dict[str, Tensor]:
        """Float log-likelihoods, in nats, of rounded latents: what the exact path is held against."""
        parameters = self.mixture_parameters(y_hat, z_hat)
        return {"y": log_likelihood(y_hat, parameters, self.G), "z": self.z_prior(z_hat)}

    @property
    def device(self) -> torch.device:
        return self.z_prior.log_sigma.device

    @property
    def exact(self) -> ExactEntropyModel:
        """The integer entropy model of the present weights, on the device of the model."""
        if self._exact is None:
            self.update()
        assert self._exact is not None
        if self._exact.device != self.device:
            self._exact = self._exact.to(self.device)
        return self._exact

    def use_exact(self, exact: ExactEntropyModel) -> None:
        """Code with stored integers in place of those derived from the float weights."""
        self._exact = exact
        self.cached_fingerprint = None

    def update(self, *_args: Any, force: bool = False, **_kwargs: Any) -> bool:
        """Derive the integer entropy model from the weights; True if that was done (the contract of CompressAI)."""
        if self._exact is not None and not force:
            return False
        self.use_exact(ExactEntropyModel.quantise(self))
        return True

    @torch.inference_mode()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """Code images (B, 3, H, W) in [0, 1]: ``{"strings": [[y of each], [z of each]], "shape": size of z}``.

        A z string begins with the true height and width, which the decoder needs (LEB128 each).
        """
        size = (x.shape[-2], x.shape[-1])
        y_hat, z_hat = self.latents(x)
        prefix = pack_varint(size[0]) + pack_varint(size[1])
        y_strings = [self.exact.encode_y(y, z) for y, z in zip(y_hat, z_hat, strict=True)]
        z_strings = [prefix + self.exact.encode_z(z) for z in z_hat]
        return {"strings": [y_strings, z_strings], "shape": z_hat.shape[-2:]}

    @torch.inference_mode()
    def decompress(self, strings: list[list[bytes]], shape: tuple[int, int]) -> dict[str, Tensor]:
        """Images from :meth:`compress`: ``{"x_hat": (B, 3, H, W)}`` clamped to [0, 1].

        Raises:
            BitstreamError: the strings are damaged so that they cannot be decoded, or ``shape`` is not theirs. Other
                damage goes unnoticed, as the strings carry no checksum; a ``.jiq`` file does.
        """
        y_hats: list[Tensor] = []
        size = first = (0, 0)
        for y_string, z_string in zip(*strings, strict=True):
            height, position = unpack_varint(z_string, 0)
            width, position = unpack_varint(z_string, position)
            size = (height, width)
            if y_hats and size != first:
                raise BitstreamError(f"the strings of a batch hold images of different sizes, {first} and {size}")
            first, sizes = size, pyramid(size, 6)
            if sizes[6] != tuple(shape):
                raise BitstreamError(f"the strings hold z of size {sizes[6]}, not {tuple(shape)}")
            z_hat = self.exact.decode_z(z_string[position:], sizes[6])
            y_hats.append(self.exact.decode_y(y_string, z_hat, sizes[4]))
        x_hat, _ = self.reconstruct(torch.stack(y_hats).to(next(self.g_s.parameters()).dtype), size)
        return {"x_hat": x_hat.clamp(0, 1)}

    def train(self, mode: bool = True) -> JointIQNet:
        """As in ``nn.Module``; weights about to change invalidate the integers derived from them."""
        if mode:
            self._forget_exact()
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> Any:
        """As in ``nn.Module``."""
        self._forget_exact()
        return super().load_state_dict(state_dict, strict=strict)

    def _forget_exact(self) -> None:
        self._exact = None
        self.cached_fingerprint = None

    def get_extra_state(self) -> Tensor:
        """The configuration as bytes of JSON, so that a state dict says what it is the state of."""
        return torch.frombuffer(bytearray(json.dumps(self.config).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse a state whose entropy model works differently although its tensors have the same shapes."""
        # Also reached when weights are loaded through a parent module, which passes load_state_dict by.
        self._forget_exact()
        stored = json.loads(bytes(state.tolist()))
        for key in ("scan", "min_known", "hyper_abs", "hyper_exp"):
            if stored[key] != self.config[key]:
                raise ConfigError(f"model.{key}", self.config[key], f"{stored[key]!r}, as in the checkpoint")

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> JointIQNet:
        """The model that a state dict belongs to, with its weights (the contract of CompressAI)."""
        config = json.loads(bytes(state_dict["_extra_state"].tolist()))
        del config["name"]
        model = cls(**config)
        model.load_state_dict(state_dict)
        return model

    def aux_loss(self) -> Tensor:
        """Zero: no part of this model needs CompressAI's auxiliary loss."""
        return torch.zeros((), device=self.device)


def bits(log_likelihoods: Tensor) -> Tensor:
    """Total bits of log-likelihoods in nats."""
    return -log_likelihoods.sum() / math.log(2)
