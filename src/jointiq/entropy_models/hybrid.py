"""The entropy model of Lee 2019's hybrid (ICLR, appendix 6.1), for high rates.

    y_hat --+-- y1_hat (M1) --> known 4x4 window c'' --> f --> N(mu, sigma^2) of y1_hat
            |                                            ^
            |                                 exp --> c' 4x4 window
            +-- h_a --> z --> round --> z_hat --> h_s --+
            |                                 exp --> sigma: N(0, sigma^2) of y2_hat
            +-- y2_hat (M2)

h_a sees both parts. c'' holds y1_hat alone (Eq. 9), although y2_hat is known by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jointiq.bitstream.scan import ORDERS
from jointiq.entropy_models import register_entropy_model
from jointiq.entropy_models.context import CONDITIONS, ContextEntropyModel, ContextSettings
from jointiq.entropy_models.gaussian_mixture import parameter_kinds
from jointiq.entropy_models.integer.hybrid import IntegerHybridModel
from jointiq.errors import ConfigError
from jointiq.layers.transforms import bounded_exp
from jointiq.parts import Settings, at_least, one_of


@dataclass(frozen=True)
class HybridSettings(Settings):
    """Settings of :class:`HybridEntropyModel`.

    Attributes:
        M1, M2: channels of y that are coded with contexts, and by a scale alone.
        G: Gaussians of the mixture that models y1; 1 in the paper.
        scan: ``raster``, ``wavefront`` or ``quarters``: order in which y1 is coded.
        estimator_width: hidden channels of f in multiples of M1 (our choice).
        conditions: as in :class:`jointiq.entropy_models.context.ContextSettings`.
    """

    M1: int = at_least(1)
    M2: int = at_least(1)
    G: int = at_least(1, default=1)
    scan: str = one_of(ORDERS, default="wavefront", shapeless=True)
    estimator_width: int = at_least(1, default=2)
    conditions: str = one_of(CONDITIONS, default="rounded", training=True)


@register_entropy_model("hybrid", HybridSettings)
class HybridEntropyModel(ContextEntropyModel):
    """The hybrid entropy model; ``y`` is y1 and y2 along the channels, M = M1 + M2 of them.

    Raises:
        ConfigError: M1 and M2 do not add up to M.
    """

    ALL_RATES = False

    def __init__(self, N: int, M: int, settings: HybridSettings) -> None:
        if settings.M1 + settings.M2 != M:
            raise ConfigError("model.M1", settings.M1, f"{M} - model.M2, because y has {M} channels")
        own = ContextSettings(
            G=settings.G,
            global_context=False,
            mprm=False,
            scan=settings.scan,
            hyper_abs=True,
            estimator_width=settings.estimator_width,
            conditions=settings.conditions,
        )
        super().__init__(N, M, own, modelled=settings.M1)
        self.parts = [settings.M1, settings.M2]

    def mixture_parameters(self, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """Return the parameters of every position; those of y2 have mean 0 and the scale that h_s gives."""
        batch, _, height, width = y_hat.shape
        c_prime, log_sigma = self.h_s(z_hat, (height, width)).split(self.parts, 1)
        shape = (batch, parameter_kinds(self.G), self.G, -1, height, width)
        first = self.estimator(bounded_exp(c_prime), y_hat[:, : self.parts[0]]).view(shape)
        means_and_logits = log_sigma.new_zeros(batch, shape[1] - 1, self.G, self.parts[1], height, width)
        log_sigmas = log_sigma[:, None, None].expand(-1, 1, self.G, -1, -1, -1)
        second = torch.cat([means_and_logits, log_sigmas], 1)
        return torch.cat([first, second], 3).flatten(1, 3)

    def integers_of(self, tensors: Mapping[str, Tensor]) -> IntegerHybridModel:
        return IntegerHybridModel(tensors, self.settings.G, self.settings.scan)
