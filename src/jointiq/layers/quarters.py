"""The estimator f for the order ``quarters``: four steps, each with windows and weights of its own.

The grid is seen in blocks of 2x2 positions. Each step codes one position of every block
(:data:`jointiq.bitstream.scan.PLACES`), and knows those of the steps before it in all blocks:

    c'    3x3 window of h_s(z_hat) around the position ----------------+
                                                                       +--> FC - FC - FC --> MPRM --> parameters
    c''   known positions of the 3x3 blocks around (none in step 0) ---+                      ^
    c'''  global context (:mod:`jointiq.layers.block_context`) -------------------------------+

The first layer is trained for each step; all others serve every position, as in :mod:`jointiq.layers.estimator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.bitstream.scan import PLACES, QuarterStep
from jointiq.layers.estimator import IntegerPointwise, ParameterEstimator
from jointiq.layers.integer_layers import IntegerLinear, to_fixed
from jointiq.layers.padding import Size, crop, pad_to_even

STEPS = len(PLACES)
# Side of both windows: of positions for c', of blocks for c''.
WINDOW = 3


def split_quarters(x: Tensor) -> list[Tensor]:
    """Return the positions of each step, (B, C, ceil(H / 2), ceil(W / 2)) each, from (B, C, H, W); zero outside."""
    x = pad_to_even(x)
    return [x[..., row::2, column::2] for row, column in PLACES]


def join_quarters(quarters: Sequence[Tensor], size: Size) -> Tensor:
    """Undo :func:`split_quarters`."""
    rows = [torch.stack([quarters[PLACES.index((row, column))] for column in range(2)], -1) for row in range(2)]
    return crop(torch.stack(rows, -3).flatten(-2).flatten(-3, -2), size)


class QuarterEstimator(ParameterEstimator):
    """f for the order ``quarters``: as :class:`ParameterEstimator`, with the windows of four steps."""

    def _add_windows(self, M: int, outputs: int) -> None:
        self.hyper_windows = nn.ModuleList(nn.Conv2d(M, outputs, WINDOW, stride=2) for _ in range(STEPS))
        # What c' and c'' give is one sum, with one bias.
        self.known_windows = nn.ModuleList(
            nn.Conv2d(step * M, outputs, WINDOW, padding=WINDOW // 2, bias=False) for step in range(1, STEPS)
        )

    def forward(self, c_prime: Tensor, y_hat: Tensor, c_global: Tensor | None = None) -> Tensor:
        """c_prime, y_hat: (B, M, H, W); c_global: (4, B, 2M, ceil(H / 2), ceil(W / 2)), one for each step, or None."""
        padded = F.pad(pad_to_even(c_prime), (WINDOW // 2,) * 4)
        quarters = split_quarters(y_hat)
        steps = []
        for step, (row, column) in enumerate(PLACES):
            total = self.hyper_windows[step](padded[..., row:, column:])
            if step:
                total = total + self.known_windows[step - 1](torch.cat(quarters[:step], 1))
            steps.append(total)
        parameters = self._pointwise(torch.cat(steps), None if c_global is None else c_global.flatten(0, 1))
        return join_quarters(parameters.chunk(STEPS), (y_hat.shape[-2], y_hat.shape[-1]))


class IntegerQuarterEstimator:
    """The integer network of :class:`QuarterEstimator`; an image is coded with the state that :meth:`begin` returns.

    Args:
        layers: ``window0`` to ``window3``, and those of :class:`IntegerPointwise`. The inputs of ``window{s}`` are the
            window of c' in (row, column, channel) order, then the blocks around in (row, column, step, channel) order.

    Attributes:
        M: channels of y.
        windows: the transposed weights of each step for c', and for y_hat.
    """

    def __init__(self, layers: Mapping[str, IntegerLinear]) -> None:
        self.layers = dict(layers)
        self.M = layers["window0"].weight.shape[1] // WINDOW**2
        self.pointwise = IntegerPointwise(layers)
        entries = WINDOW**2 * self.M
        self.windows = [layers[f"window{step}"].split(entries, step * entries) for step in range(STEPS)]

    @classmethod
    def quantise(cls, estimator: ParameterEstimator) -> IntegerQuarterEstimator:
        """Quantise the weights of a float f, a :class:`QuarterEstimator`."""
        layers = {}
        for step, convolutions in enumerate(_windows(estimator)):
            weight = torch.cat([conv.weight.permute(0, 2, 3, 1).flatten(1) for conv in convolutions], 1)
            layers[f"window{step}"] = IntegerLinear.quantise(weight, convolutions[0].bias)
        return cls({**layers, **IntegerPointwise.quantise(estimator)})

    @torch.no_grad()
    def restore(self, estimator: ParameterEstimator) -> None:
        """Set the weights of a float f, a :class:`QuarterEstimator`, to what the integers stand for."""
        for step, convolutions in enumerate(_windows(estimator)):
            weight, bias = self.layers[f"window{step}"].floats()
            entries = [conv.weight[0].numel() for conv in convolutions]
            for conv, part in zip(convolutions, weight.split(entries, 1), strict=True):
                conv.weight.copy_(part.view(len(part), WINDOW, WINDOW, -1).permute(0, 3, 1, 2))
            assert convolutions[0].bias is not None
            convolutions[0].bias.copy_(bias)
        self.pointwise.restore(estimator)

    def begin(self, c_prime: Tensor) -> QuarterEstimatorState:
        """Begin an image: c' (M, h, w), fixed point."""
        return QuarterEstimatorState(self, c_prime)


class QuarterEstimatorState:
    """What f knows of one image: all of c', and y_hat as far as it has been written.

    Args:
        network: whose layers are evaluated.
        c_prime: (M, h, w), fixed point.
    """

    def __init__(self, network: IntegerQuarterEstimator, c_prime: Tensor) -> None:
        self.network = network
        padded = F.pad(pad_to_even(c_prime[None]), (WINDOW // 2,) * 4)[0]
        self.c_prime = padded.permute(1, 2, 0).contiguous()
        height, width, _ = self.c_prime.shape
        # In blocks, with a border of zeros; the channels of the steps follow each other.
        self.known = c_prime.new_zeros(height // 2 + 1, width // 2 + 1, (STEPS - 1) * network.M)

    def write(self, step: QuarterStep, y_hat: Tensor) -> None:
        """Record y_hat (step.count, M), integers, at the positions of a step."""
        if step.place < STEPS - 1:
            M, inside = self.network.M, self.known[1:-1, 1:-1]
            inside[step.blocks][..., step.place * M : (step.place + 1) * M] = to_fixed(y_hat).view(
                step.rows, step.columns, M
            )

    def read(self, step: QuarterStep, c_global: Tensor | None) -> Tensor:
        """Return the parameters of a step, (step.count, parameters); c_global (step.count, 2M) fixed point, or None."""
        M = self.network.M
        row, column = PLACES[step.place]
        total = _patches(self.c_prime[row + 2 * step.top :, column:], step, 2) @ self.network.windows[step.place][0]
        if step.place:
            known = self.known[step.top :, :, : step.place * M]
            total.addmm_(_patches(known, step, 1), self.network.windows[step.place][1])
        return self.network.pointwise(self.network.layers[f"window{step.place}"].finish_(total), c_global)


def _windows(estimator: ParameterEstimator) -> list[list[nn.Conv2d]]:
    """Return the layers whose outputs add up to the first layer of each step."""
    assert isinstance(estimator, QuarterEstimator)
    known: list[list[nn.Module]] = [[], *([layer] for layer in estimator.known_windows)]
    layers = [[hyper, *more] for hyper, more in zip(estimator.hyper_windows, known, strict=True)]
    return [[layer for layer in parts if isinstance(layer, nn.Conv2d)] for parts in layers]


def _patches(grid: Tensor, step: QuarterStep, stride: int) -> Tensor:
    """Return the 3x3 windows of a grid (rows, columns, C) from its corner on, for each position of a step.

    Returns:
        (step.count, 9C), in (row, column, channel) order.
    """
    down, right, _ = grid.stride()
    channels = grid.shape[2]
    shape = (step.rows, step.columns, WINDOW, WINDOW, channels)
    strides = (stride * down, stride * right, down, right, 1)
    return grid.as_strided(shape, strides, grid.storage_offset()).reshape(step.count, -1)
