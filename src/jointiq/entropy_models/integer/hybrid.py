"""The integer network of Lee 2019's hybrid (appendix 6.1): y1 with contexts, y2 by scales from z_hat alone.

    z_hat --> h_s --+--> log sigma --> zero-mean Gaussians --> y2_hat, all positions
                    +--> exp --> c' --> ... as in context.py ... --> y1_hat, step by step

Both are one run of coded decisions, y2_hat first. Its rows are steps only to bound the memory; they do not depend on
each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jointiq.bitstream.binarisation import CodeStage, binarise
from jointiq.entropy_models.gaussian_mixture import IntegerMixture
from jointiq.entropy_models.integer.context import IntegerContextModel
from jointiq.entropy_models.integer.recorder import Recorder
from jointiq.layers.transforms import integer_exp


class IntegerHybridModel(IntegerContextModel):
    """Integer network of a :class:`jointiq.entropy_models.hybrid.HybridEntropyModel`.

    h_s ends without its exponential here, because the scales are wanted as logarithms.
    """

    def _record(self, recorder: Recorder, y_hat: Tensor, hyper: Tensor, first_step: int = 0) -> None:
        c_prime, log_sigma = self._parts(hyper)
        first, second = y_hat.split([self.M, self.channels - self.M], 2)
        for row, values in enumerate(second):
            symbols = values.flatten()
            recorder.record(_row(log_sigma[row]), symbols, torch.full_like(symbols, first_step + row))
        super()._record(recorder, first.contiguous(), c_prime, first_step + len(second))

    def _decode(self, read: CodeStage, hyper: Tensor) -> Tensor:
        c_prime, log_sigma = self._parts(hyper)
        second = torch.stack([binarise(_row(row), read).view(row.shape) for row in log_sigma])
        return torch.cat([super()._decode(read, c_prime), second], 2)

    def _parts(self, hyper: Tensor) -> tuple[Tensor, Tensor]:
        """Return c' of y1 (M1, h, w) and the log sigmas of y2 (h, w, M2), from the output of h_s."""
        c_prime, log_sigma = hyper.split([self.M, self.channels - self.M])
        return integer_exp(c_prime), log_sigma.permute(1, 2, 0).long()


def _row(log_sigma: Tensor) -> IntegerMixture:
    """Return the distributions of y2_hat in a row (w, M2), a position's channels together."""
    log_sigmas = log_sigma.reshape(1, -1)
    zeros = torch.zeros_like(log_sigmas)
    return IntegerMixture(zeros, zeros, log_sigmas)
