"""Mean and scale of every position from its 5x5 neighbourhood in a feature map (Hu 2020, section 3).

The authors cut out the 5x5 patch around each position and send it through three 3x3 convolutions, each padded with
zeros at the border of the patch (5x5 -> 5x5 -> (stride 2) 3x3 -> 3x3, LeakyReLU after each), and a linear layer.
Neighbouring patches share most of the work, so it is done here on whole maps, with the same result: the value at offset
p inside the patch of a position depends on p only by which border of the patch cuts the kernel. Along one axis there
are three cases, at each of the layers:

    layer 1   offsets    -2 | -1 0 1 | 2      computed once for each case, read at every offset of the case
    layer 2   offsets    -2 |    0   | 2      every second one
    layer 3   offsets    -2 |    0   | 2
    kernel    rows       0 1 | -1 0 1 | -1 0  that lie inside the patch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.layers.integer_layers import LEAKY_SLOPE, STRIP_POSITIONS, IntegerLinear, leaky_relu_

LAYERS = 3
#: Kernel rows (or columns) inside the patch, for each of the three cases.
TAPS = ((0, 1), (-1, 0, 1), (-1, 0))
#: Lines of zeros around a map: two for the patch, one that the first layer reads beyond it.
REACH = 3

# Evaluates a layer for one case of rows and columns: (layer, case, case, (..., taps * C)) -> (..., C).
ApplyLayer = Callable[[int, int, int, Tensor], Tensor]


class NeighbourhoodPredictor(nn.Module):
    """Features (B, C, h, w) -> parameters of one Gaussian for C channels (B, 2C, h, w): means, then log sigmas."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(LAYERS))
        self.linear = nn.Conv2d(len(TAPS) ** 2 * channels, 2 * channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        def apply(layer: int, row_case: int, column_case: int, inputs: Tensor) -> Tensor:
            convolution = self.convs[layer]
            assert isinstance(convolution, nn.Conv2d)
            weight = cut_kernel(convolution.weight, row_case, column_case)
            return F.leaky_relu(F.linear(inputs, weight, convolution.bias), LEAKY_SLOPE)

        patches = patch_convolutions(F.pad(features, (REACH,) * 4).permute(0, 2, 3, 1), apply)
        return self.linear(patches.permute(0, 3, 1, 2))


def cut_kernel(weight: Tensor, row_case: int, column_case: int) -> Tensor:
    """Return the part of a 3x3 kernel inside the patch: (out, C, 3, 3) -> (out, taps * C), (row, column, C) order."""
    rows, columns = TAPS[row_case], TAPS[column_case]
    inside = weight[:, :, rows[0] + 1 : rows[-1] + 2, columns[0] + 1 : columns[-1] + 2]
    return inside.permute(0, 2, 3, 1).flatten(1)


def patch_convolutions(padded: Tensor, apply: ApplyLayer) -> Tensor:
    """Apply the three convolutions to the 5x5 patch of every position: (B, h + 6, w + 6, C) -> (B, h, w, 9C)."""
    height, width = padded.shape[1] - 2 * REACH, padded.shape[2] - 2 * REACH
    cases = [(row, column) for row in range(len(TAPS)) for column in range(len(TAPS))]

    def layer(index: int, read: Callable[[int, int, int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
        """Return all cases of a layer; ``read(row case, column case, row tap, column tap)`` returns an input of it."""
        return {
            (i, j): apply(index, i, j, torch.cat([read(i, j, u, v) for u in TAPS[i] for v in TAPS[j]], -1))
            for i, j in cases
        }

    def of_map(i: int, j: int, u: int, v: int) -> Tensor:
        return padded[:, 1 + u : height + 5 + u, 1 + v : width + 5 + v]

    def of_first(i: int, j: int, u: int, v: int) -> Tensor:
        row, column = 2 * (i - 1) + u, 2 * (j - 1) + v
        return first[_case(row), _case(column)][:, 2 + row : 2 + row + height, 2 + column : 2 + column + width]

    first = layer(0, of_map)
    second = layer(1, of_first)
    third = layer(2, lambda i, j, u, v: second[i + u, j + v])
    return torch.cat([third[case] for case in cases], -1)


def _case(offset: int) -> int:
    """Return the case of the first layer's kernel at an offset inside the patch: 0 and 2 at a border, else 1."""
    return {-2: 0, 2: 2}.get(offset, 1)


class IntegerNeighbourhoodPredictor:
    """Integer network of :class:`NeighbourhoodPredictor`.

    Args:
        layers: ``conv0`` to ``conv2`` and ``linear``.
    """

    def __init__(self, layers: Mapping[str, IntegerLinear]) -> None:
        self.layers = dict(layers)

    @classmethod
    def quantise(cls, predictor: NeighbourhoodPredictor) -> IntegerNeighbourhoodPredictor:
        """Quantise the weights of a float predictor."""
        layers = {f"conv{i}": IntegerLinear.of_layer(layer) for i, layer in enumerate(predictor.convs)}
        return cls(layers | {"linear": IntegerLinear.of_layer(predictor.linear)})

    def restore(self, predictor: NeighbourhoodPredictor) -> None:
        """Set the weights of a float predictor to what the integers stand for."""
        for index, layer in enumerate(predictor.convs):
            self.layers[f"conv{index}"].restore(layer)
        self.layers["linear"].restore(predictor.linear)

    def rows(self, features: Tensor) -> Iterator[Tensor]:
        """Yield the parameters (w, 2C) of each row of positions from features (C, h, w), all fixed point."""

        def apply(layer: int, row_case: int, column_case: int, inputs: Tensor) -> Tensor:
            integers = self.layers[f"conv{layer}"]
            weight = cut_kernel(integers.weight.view(len(integers.weight), -1, 3, 3), row_case, column_case)
            return leaky_relu_(integers.finish_(inputs @ weight.T))

        _, height, width = features.shape
        padded = F.pad(features, (REACH,) * 4).permute(1, 2, 0)[None]
        strip = max(1, STRIP_POSITIONS // width)
        for top in range(0, height, strip):
            patches = patch_convolutions(padded[:, top : top + strip + 2 * REACH], apply)
            yield from self.layers["linear"](patches[0])
