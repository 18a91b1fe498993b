"""The integer form of a fully factorised prior: the cumulative of each channel as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from jointiq.bitstream.binarisation import binarise
from jointiq.bitstream.rans import DecisionDecoder
from jointiq.entropy_models.base import IntegerEntropyModel
from jointiq.entropy_models.integer.recorder import Recorder, in_range, reader
from jointiq.layers.padding import Size, pyramid

TABLE_BITS = 24
# Symbols that are coded together: rows of all channels up to this number (a row at the least), to bound the memory.
STEP_SYMBOLS = 1 << 20


class IntegerTable:
    """Distributions of a set of symbols, for :func:`jointiq.bitstream.binarisation.binarise`.

    Args:
        cdf: of :func:`jointiq.entropy_models.factorized.integer_cdf`.
        positions: symbols of each channel, which follow channel by channel.
    """

    total = 1 << TABLE_BITS

    def __init__(self, cdf: Tensor, positions: int) -> None:
        self._reach = cdf.shape[1] // 2 - 1
        # All mass lies between the two ends that are added.
        self._cdf = F.pad(F.pad(cdf.long(), (1, 0)), (0, 1), value=self.total)
        self._channel = torch.arange(len(cdf), device=cdf.device).repeat_interleave(positions)
        # The value that the median falls on.
        median = (cdf <= self.total // 2).sum(1) - 1 - self._reach
        self.centre = median.clamp(-self._reach, self._reach)[self._channel]

    def below(self, members: Tensor | slice, offset: Tensor | int) -> Tensor:
        """Mass below centre + offset of the symbols ``members``."""
        index = (self.centre[members] + offset + self._reach + 1).clamp(0, self._cdf.shape[1] - 1)
        return self._cdf[self._channel[members], index]


class IntegerFactorized(IntegerEntropyModel):
    """Integer entropy model of a latent ``y`` at 1/16 of the image, without side information.

    Args:
        tensors: ``cdf``, of :func:`jointiq.entropy_models.factorized.integer_cdf`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.cdf = tensors["cdf"]

    def record(self, latents: Mapping[str, Tensor]) -> dict[str, Recorder]:
        y_hat = in_range(latents["y"], self.device)
        recorder = Recorder()
        for step, (rows, table) in enumerate(self._steps((y_hat.shape[1], y_hat.shape[2]))):
            values = y_hat[:, rows].flatten()
            recorder.record(table, values, torch.full_like(values, step))
        return {"y": recorder}

    def decode(self, segments: Mapping[str, bytes], size: Size) -> dict[str, Tensor]:
        height, width = pyramid(size, 4)[4]
        decoder = DecisionDecoder(segments["y"], len(self.cdf) * height * width)
        steps = self._steps((height, width))
        rows = [binarise(table, reader(decoder)).view(len(self.cdf), -1, width) for _, table in steps]
        decoder.finish()
        return {"y": torch.cat(rows, dim=1)}

    def _steps(self, size: Size) -> Iterator[tuple[slice, IntegerTable]]:
        """Yield rows that are coded together, and the distributions of their symbols."""
        height, width = size
        rows = max(1, STEP_SYMBOLS // (len(self.cdf) * width))
        for first in range(0, height, rows):
            last = min(first + rows, height)
            yield slice(first, last), IntegerTable(self.cdf, (last - first) * width)
