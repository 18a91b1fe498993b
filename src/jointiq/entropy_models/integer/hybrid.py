"""The exact entropy model of Lee 2019's hybrid (appendix 6.1): y1 with contexts, y2 by scales from z_hat alone.

    z_hat --> h_s --+--> log sigma --> zero-mean Gaussians --> y2_hat, all positions
                    +--> exp --> c' --> ... as in context.py ... --> y1_hat, step by step

Both are one run of coded decisions, y2_hat first. Its rows are steps only to bound the memory; they do not depend on
each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jointiq.bitstream.binarisation import CodeStage, walk
from jointiq.entropy_models.gaussian_mixture import ExactMixture
from jointiq.entropy_models.integer.context import ExactEntropyModel
from jointiq.entropy_models.integer.recorder import Recorder
from jointiq.layers.padding import Size
from jointiq.layers.transforms import exact_exp


class ExactHybridModel(ExactEntropyModel):
    """Integer entropy model of a :class:`jointiq.models.lee2019.Lee2019Hybrid`.

    Args:
        config: of the model (``M1``, ``M2``, ``G``, ``scan`` are read).
        tensors: the integers of :meth:`tensors`.
    """

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        # h_s ends without its exponential here, because the scales are wanted as logarithms.
        super().__init__({**config, "M": config["M1"], "hyper_exp": False}, tensors)
        self.M2: int = config["M2"]

    @property
    def channels(self) -> int:
        """Channels of y, both parts."""
        return self.M + self.M2

    def _c_prime(self, z_hat: Tensor, size: Size) -> Tensor:
        c_prime, log_sigma = self.h_s(z_hat, size).split([self.M, self.M2])
        self._log_sigma = log_sigma.permute(1, 2, 0).long()
        return exact_exp(c_prime)

    def _record(self, recorder: Recorder, y_hat: Tensor, first_step: int = 0) -> None:
        first, second = y_hat.split([self.M, self.M2], 2)
        for step, row in enumerate(second, start=first_step):
            values = row.flatten()
            recorder.record(self._row(step - first_step), values, torch.full_like(values, step))
        super()._record(recorder, first.contiguous(), first_step + len(second))

    def _decode(self, read: CodeStage, size: Size) -> Tensor:
        height, width = size
        second = torch.stack([walk(self._row(row), read).view(width, self.M2) for row in range(height)])
        return torch.cat([super()._decode(read, size), second], 2)

    def _row(self, row: int) -> ExactMixture:
        """The distributions of y2_hat in a row, a position's channels together."""
        log_sigmas = self._log_sigma[row].reshape(1, -1)
        zeros = torch.zeros_like(log_sigmas)
        return ExactMixture(zeros, zeros, log_sigmas)
