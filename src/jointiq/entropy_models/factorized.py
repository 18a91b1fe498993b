"""A fully factorised prior with a trained density for each channel: training likelihood and integer twin.

The density is that of Balle 2018 (appendix 6.1): the logits of its cumulative are a small monotonic network, one for
each channel. Balle 2017 had piecewise linear densities; this one is smoother and as free, and what the field uses (our
choice).

The twin is the cumulative as integers, a row for each channel. It is derived once, in float64 on the CPU, and stored in
an export. Machines may differ in the last digits of tanh and exp; rounding to 24 bits hides that but for a rare entry
(of about one derived table in a thousand), and then the fingerprints of two derived tables differ: an
error, never a wrong picture. An export decodes the same everywhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.bitstream.binarisation import walk
from jointiq.bitstream.rans import DecisionDecoder
from jointiq.entropy_models.integer.recorder import Recorder, in_range, reader
from jointiq.layers.integer_layers import require_finite
from jointiq.layers.padding import Size, pyramid

# Hidden widths of the monotonic networks, and the width of their density before training.
WIDTHS = (3, 3, 3, 3)
INITIAL_SCALE = 10.0
# Keeps the logarithm finite where float32 cannot tell two cumulatives apart.
GAP_MIN = 1e-7

CDF_BITS = 24
# A table reaches to the power of two beyond which no channel has mass left; values outside cost more, but can be coded.
REACH_MIN, REACH_MAX = 8, 4096
# Symbols that are coded together: rows of all channels up to this number (a row at the least), to bound the memory.
STEP_SYMBOLS = 1 << 20


class FactorizedDensity(nn.Module):
    """log p(y) for y of shape (B, C, h, w): one density for each channel, convolved with U(-1/2, 1/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = (1, *WIDTHS, 1)
        scale = INITIAL_SCALE ** (1 / (len(sizes) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            # softplus of these is 1 / (scale * outputs): each layer divides its input by `scale`.
            start = math.log(math.expm1(1 / scale / outputs))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.empty(channels, outputs, 1).uniform_(-0.5, 0.5)))
        for outputs in WIDTHS:
            self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))

    def logits(self, values: Tensor) -> Tensor:
        """Logits of the cumulative at ``values``, (C, 1, n) each; they rise with the values."""
        out = values
        for index, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            out = F.softplus(matrix) @ out + bias
            if index < len(self.factors):
                out = out + torch.tanh(self.factors[index]) * torch.tanh(out)
        return out

    def forward(self, y: Tensor) -> Tensor:
        """Log-likelihood in nats, shape of ``y``, always in float32, not floored."""
        with torch.autocast(y.device.type, enabled=False):
            by_channel = y.float().transpose(0, 1)
            values = by_channel.reshape(len(by_channel), 1, -1)
            lower, upper = self.logits(values - 0.5), self.logits(values + 0.5)
            # log(s(u) - s(l)) with the sigmoid s, as log s(u) + log s(-l) + log(1 - e^(l - u)): no digits cancel.
            gap = (upper - lower).clamp(min=GAP_MIN)
            mass = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-gap))
            return mass.view(by_channel.shape).transpose(0, 1)


@torch.no_grad()
def exact_cdf(density: FactorizedDensity) -> Tensor:
    """The cumulatives as integers out of 2^24, int32 (C, 2 reach + 2): entry i is the mass below i - reach - 1/2.

    Raises:
        ModelError: weights that are not finite.
    """
    for parameter in density.parameters():
        require_finite(parameter)
    precise = copy.deepcopy(density).cpu().double()
    total = 1 << CDF_BITS
    reach = REACH_MIN
    while True:
        edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
        cdf = torch.round(torch.sigmoid(precise.logits(edges.expand(len(precise.matrices[0]), 1, -1))[:, 0]) * total)
        if reach == REACH_MAX or bool((cdf[:, 0] == 0).all() and (cdf[:, -1] == total).all()):
            # Rising even where the last digit of a float was not.
            return cdf.cummax(1).values.int()
        reach *= 2


class ExactTable:
    """Distributions of a set of symbols, for :func:`jointiq.bitstream.binarisation.walk`.

    Args:
        cdf: of :func:`exact_cdf`.
        positions: symbols of each channel, which follow channel by channel.
    """

    total = 1 << CDF_BITS

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


class ExactFactorized:
    """The integer entropy model of a latent ``y`` at 1/16 of the image that nothing else tells of.

    Args:
        tensors: ``cdf``, of :func:`exact_cdf`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.cdf = tensors["cdf"]

    @classmethod
    def quantise(cls, density: FactorizedDensity) -> ExactFactorized:
        """Derive the integers from a trained density."""
        return cls({"cdf": exact_cdf(density)})

    def tensors(self) -> dict[str, Tensor]:
        """All integers that define the model, by name."""
        return {"cdf": self.cdf}

    def to(self, device: torch.device | str) -> ExactFactorized:
        """The same model on ``device``."""
        return ExactFactorized({"cdf": self.cdf.to(device)})

    @property
    def device(self) -> torch.device:
        return self.cdf.device

    def record(self, latents: Mapping[str, Tensor]) -> dict[str, Recorder]:
        """The decisions that code ``y`` (C, h, w), integers."""
        y_hat = in_range(latents["y"], self.device)
        recorder = Recorder()
        for step, (rows, table) in enumerate(self._steps((y_hat.shape[1], y_hat.shape[2]))):
            values = y_hat[:, rows].flatten()
            recorder.record(table, values, torch.full_like(values, step))
        return {"y": recorder}

    def decode(self, segments: Mapping[str, bytes], size: Size) -> dict[str, Tensor]:
        """``y``, int64 (C, h, w), of an image of the given size."""
        height, width = pyramid(size, 4)[4]
        decoder = DecisionDecoder(segments["y"], len(self.cdf) * height * width)
        steps = self._steps((height, width))
        rows = [walk(table, reader(decoder)).view(len(self.cdf), -1, width) for _, table in steps]
        decoder.finish()
        return {"y": torch.cat(rows, dim=1)}

    def _steps(self, size: Size) -> Iterator[tuple[slice, ExactTable]]:
        """Rows that are coded together, and the distributions of their symbols."""
        height, width = size
        rows = max(1, STEP_SYMBOLS // (len(self.cdf) * width))
        for first in range(0, height, rows):
            last = min(first + rows, height)
            yield slice(first, last), ExactTable(self.cdf, (last - first) * width)
