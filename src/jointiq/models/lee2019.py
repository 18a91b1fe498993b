"""The hybrid model of Lee, Cho, Beack: "Context-adaptive Entropy Model for End-to-end Optimized Image Compression".

ICLR 2019, appendix 6.1: for high rates. The base model of the paper is
:class:`jointiq.models.jointiq.JointIQNet` without its additions (conf/experiment/lee2019.yaml).

                    +-- y1_hat (M1) --+--> known 4x4 window c'' --> f --> N(mu, sigma^2) of y1_hat
    g_a --> round --+                 |                             ^
                    +-- y2_hat (M2) --+--> g_s                      |
                                      |                    exp --> c' 4x4 window
                                      +--> h_a --> z_hat --> h_s --+
                                                           exp --> sigma: N(0, sigma^2) of y2_hat

h_a and g_s see both parts. c'' holds y1_hat alone (Eq. 9), although y2_hat is known by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from compressai.registry import register_model
from torch import Tensor

from jointiq.entropy_models.gaussian_mixture import parameter_kinds
from jointiq.entropy_models.integer.hybrid import ExactHybridModel
from jointiq.errors import ConfigError
from jointiq.layers.estimator import ParameterEstimator
from jointiq.layers.transforms import bounded_exp
from jointiq.models.jointiq import JointIQNet


@register_model("lee2019_hybrid")
class Lee2019Hybrid(JointIQNet):
    """The hybrid model; ``y`` is y1 and y2 along the channels.

    Args:
        N: channels of the transforms.
        M1, M2: channels of y that are coded with contexts, and by a scale alone.
        G: Gaussians of the mixture that models y1; 1 in the paper.
        scan: ``raster`` or ``wavefront``: order in which y1 is coded.
        estimator_width: hidden channels of f in multiples of M1 (our choice).
        enhancer: config of a quality-enhancement network; None, as in the paper, leaves it out.
        conditions: as in :class:`jointiq.models.jointiq.JointIQNet`.

    Raises:
        ConfigError: a value that is not allowed.
    """

    SHAPELESS = ("scan",)
    EXACT = ExactHybridModel

    def __init__(
        self,
        N: int,
        M1: int,
        M2: int,
        G: int = 1,
        scan: str = "wavefront",
        estimator_width: int = 2,
        enhancer: Mapping[str, Any] | None = None,
        conditions: str = "rounded",
    ) -> None:
        for key, value in {"M1": M1, "M2": M2}.items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"model.{key}", value, "a whole number from 1 up")
        super().__init__(
            N,
            M1 + M2,
            G,
            global_context=False,
            mprm=False,
            scan=scan,
            hyper_abs=True,
            estimator_width=estimator_width,
            enhancer=enhancer,
            conditions=conditions,
        )
        own = {"name": "lee2019_hybrid", "N": N, "M1": M1, "M2": M2}
        self.config = own | {key: self.config[key] for key in ("G", "scan", "estimator_width", "enhancer")}
        self.parts = [M1, M2]
        # In place of that of all channels: f reads and models y1 alone.
        self.estimator = ParameterEstimator(M1, parameter_kinds(G) * G * M1, estimator_width, None, False)
        self.estimator.to(memory_format=torch.channels_last)

    def mixture_parameters(self, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """Parameters of every position, in the layout of :mod:`jointiq.entropy_models.gaussian_mixture`.

        Those of y2 have mean 0 and the scale that h_s gives.
        """
        batch, _, height, width = y_hat.shape
        c_prime, log_sigma = self.h_s(z_hat, (height, width)).split(self.parts, 1)
        shape = (batch, parameter_kinds(self.G), self.G, -1, height, width)
        first = self.estimator(bounded_exp(c_prime), y_hat[:, : self.parts[0]]).view(shape)
        means_and_logits = log_sigma.new_zeros(batch, shape[1] - 1, self.G, self.parts[1], height, width)
        log_sigmas = log_sigma[:, None, None].expand(-1, 1, self.G, -1, -1, -1)
        second = torch.cat([means_and_logits, log_sigmas], 1)
        return torch.cat([first, second], 3).flatten(1, 3)
