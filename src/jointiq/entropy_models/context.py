"""The context-adaptive entropy model (JointIQ-Net sections 3.2 and 4; with G = 1 and without c''', MPRM: Lee 2019).

y --> round --> y_hat --> known 4x4 window c''  ----+
                  |   --> global context c''' ------+--> f (+ MPRM) --> mixture of G Gaussians p(y_hat)
                 h_a                                |
                  |                                 |
                  +--> z --> round --> z_hat --> h_s --> c' 4x4 window
                                         |
                                   p(z_hat): zero-mean Gaussian a channel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jointiq.bitstream.scan import ORDERS, Quarters, get_scan
from jointiq.entropy_models import register_entropy_model
from jointiq.entropy_models.base import EntropyModel, Latents
from jointiq.entropy_models.gaussian_mixture import log_likelihood, parameter_kinds
from jointiq.entropy_models.integer.context import IntegerContextModel
from jointiq.entropy_models.integer.storage import pack_layers
from jointiq.entropy_models.zero_mean_gaussian import ZeroMeanGaussian, integer_log_sigma
from jointiq.errors import ConfigError
from jointiq.layers.block_context import BlockContext, IntegerBlockContext
from jointiq.layers.estimator import IntegerEstimator, ParameterEstimator
from jointiq.layers.global_context import MAX_K, GlobalContext, IntegerGlobalContext
from jointiq.layers.integer_layers import ONE
from jointiq.layers.padding import Size, pyramid
from jointiq.layers.quantize import add_uniform_noise, round_ste
from jointiq.layers.quarters import IntegerQuarterEstimator, QuarterEstimator
from jointiq.layers.transforms import HyperAnalysis, HyperSynthesis, IntegerHyperSynthesis
from jointiq.parts import Settings, at_least, between, flag, one_of

CONDITIONS = ("rounded", "noisy")


@dataclass(frozen=True)
class ContextSettings(Settings):
    """Settings of :class:`ContextEntropyModel`. What is switched off is not instantiated.

    Attributes:
        G: Gaussians of the mixture, 3 in the paper; 1 is the single-Gaussian ablation.
        global_context: use c''' (needs ``mprm``, which is what reads it).
        mprm: refine the parameters with MPRM.
        scan: ``raster``, ``wavefront`` or ``quarters``: order of coding, and so what the contexts know.
        K, min_known: reach of the trained weights of the global context; positions it needs before it is used.
        hyper_abs: h_a reads |y_hat| (Lee 2019) instead of y_hat.
        hyper_exp: h_s ends with an exponential (Lee 2019).
        estimator_width, mprm_width: hidden channels of f and MPRM in multiples of M (our choice).
        conditions: what g_s, h_s and the contexts read in training: ``rounded`` latents, or ``noisy`` ones (Lee 2019,
            appendix 6.2; h_a then reads y as it is).
    """

    G: int = at_least(1, default=3)
    global_context: bool = flag(default=True)
    mprm: bool = flag(default=True)
    scan: str = one_of(ORDERS, default="wavefront", shapeless=True)
    K: int = between(2, MAX_K, default=7)
    min_known: int = at_least(2, default=30, shapeless=True)
    hyper_abs: bool = flag(default=False, shapeless=True)
    hyper_exp: bool = flag(default=False, shapeless=True)
    estimator_width: int = at_least(1, default=2)
    mprm_width: int = at_least(1, default=2)
    conditions: str = one_of(CONDITIONS, default="rounded", training=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.global_context and not self.mprm:
            allowed = "true with model.global_context=true, because MPRM is what reads the global context"
            raise ConfigError("model.mprm", self.mprm, allowed)


@register_entropy_model("context", ContextSettings)
class ContextEntropyModel(EntropyModel):
    """The entropy model of JointIQ-Net, and of Lee 2019's base model.

    Args:
        N, M: channels of z and of y.
        settings: which parts there are, and how large.
        modelled: channels of y, the first ones, that f models; None: all.
        levels: of the prior of z in a model of all rates (:mod:`jointiq.layers.gains`); None: one rate.
    """

    IN_FORMAT = True
    SHARED = {
        "h_a": "hyper_abs",
        "h_s": "hyper_exp",
        "z_prior": None,
        "estimator.from_hyper": "estimator_width",
        "estimator.from_known": "estimator_width",
        "estimator.hidden": "estimator_width",
    }

    ALL_RATES = True

    side = ("z",)

    def __init__(
        self, N: int, M: int, settings: ContextSettings, modelled: int | None = None, levels: int | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.G = settings.G
        self.scan = get_scan(settings.scan)
        self.scan_code = self.scan.code
        channels = M if modelled is None else modelled

        self.h_a = HyperAnalysis(N, M)
        self.h_s = HyperSynthesis(N, M, exp=settings.hyper_exp)
        self.z_prior = ZeroMeanGaussian(N, levels=levels)
        self.global_context: Any = None
        if settings.global_context:
            self.global_context = (
                BlockContext(channels, settings.K, settings.min_known)
                if isinstance(self.scan, Quarters)
                else GlobalContext(channels, settings.K, settings.min_known, self.scan)
            )
        self.estimator: Any = (QuarterEstimator if isinstance(self.scan, Quarters) else ParameterEstimator)(
            channels,
            parameter_kinds(self.G) * self.G * channels,
            settings.estimator_width,
            settings.mprm_width if settings.mprm else None,
            settings.global_context,
        )

    def forward(self, y: Tensor, quality: Tensor | None = None) -> tuple[Latents, Tensor]:
        y_tilde, y_hat = self._quantise(y)
        z_tilde, z_hat = self._quantise(self.hyper_analysis(y))
        log_likelihoods = {"y": self.y_log_likelihood(y_tilde, y_hat, z_hat), "z": self.z_prior(z_tilde, quality)}
        return log_likelihoods, y_hat

    def _quantise(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return a latent as its rate reads it (noisy in training, else rounded), and as everything else reads it."""
        if not self.training:
            rounded = round_ste(latent)
            return rounded, rounded
        noisy = add_uniform_noise(latent)
        return noisy, noisy if self.settings.conditions == "noisy" else round_ste(latent)

    def hyper_analysis(self, y: Tensor) -> Tensor:
        """Return z of y, float32: that of the rounded y, but in training on noisy conditions."""
        seen = y if self.training and self.settings.conditions == "noisy" else round_ste(y)
        seen = seen.abs() if self.settings.hyper_abs else seen
        return self.h_a(seen.to(next(self.h_a.parameters()).dtype)).float()

    def analyse(self, y: Tensor) -> Latents:
        return {"z": self.hyper_analysis(y), "y": y}

    def y_log_likelihood(self, y: Tensor, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """Return the log-likelihood of y, in nats, given the contexts that y_hat and z_hat make."""
        return log_likelihood(y, self.mixture_parameters(y_hat, z_hat), self.G)

    def mixture_parameters(self, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """Return the mixture's parameters at every position from its contexts c', c'', c''' (all positions at once).

        Their layout is that of :mod:`jointiq.entropy_models.gaussian_mixture`.
        """
        c_prime = self.h_s(z_hat, (y_hat.shape[-2], y_hat.shape[-1]))
        c_global = None if self.global_context is None else self.global_context(y_hat)
        return self.estimator(c_prime, y_hat, c_global)

    def log_likelihoods(self, latents: Latents, quality: Tensor | None = None) -> Latents:
        y_hat, z_hat = latents["y"], latents["z"]
        return {"y": self.y_log_likelihood(y_hat, y_hat, z_hat), "z": self.z_prior(z_hat, quality)}

    def latent_shape(self, size: Size) -> Size:
        return pyramid(size, 6)[6]

    def integers(self) -> IntegerContextModel:
        tensors = pack_layers("h_s", IntegerHyperSynthesis.quantise(self.h_s).layers())
        estimator, quarters = self.estimator, isinstance(self.scan, Quarters)
        exact = IntegerQuarterEstimator.quantise(estimator) if quarters else IntegerEstimator.quantise(estimator)
        tensors |= pack_layers("estimator", exact.layers)
        tensors["z_prior.log_sigma"] = integer_log_sigma(self.z_prior).int()
        if self.global_context is not None:
            context = (IntegerBlockContext if quarters else IntegerGlobalContext).quantise(self.global_context)
            tensors |= pack_layers("global_context", {"transform": context.transform})
            tensors["global_context.weights"] = context.weights.int()
        return self.integers_of(tensors)

    def integers_of(self, tensors: Mapping[str, Tensor]) -> IntegerContextModel:
        """Return the integer network that ``tensors`` define."""
        settings = self.settings
        return IntegerContextModel(
            tensors, settings.G, settings.scan, settings.hyper_exp, settings.K, settings.min_known
        )

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> IntegerContextModel:
        integers = self.integers_of(tensors)
        integers.h_s.restore(self.h_s)
        integers.estimator.restore(self.estimator)
        self.z_prior.log_sigma.copy_(tensors["z_prior.log_sigma"] / ONE)
        if self.global_context is not None:
            assert integers.global_context is not None
            integers.global_context.restore(self.global_context)
        return integers
