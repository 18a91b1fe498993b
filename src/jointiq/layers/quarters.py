"""The estimator f for the order ``quarters``: eight steps, in which groups of channels rotate over 2x2 blocks.

In step s each place of a block codes another group of channels (:func:`jointiq.bitstream.scan.group_of`), so that every
step sees other places and, from the second on, other channels of its own place (after the quadtree partition of Li et
al. 2023, DCVC-DC, section 3.3; there with four groups).

    c'    3x3 window of h_s(z_hat) ------------------------------+
                                                                 +--> FC - FC --> group of channels: FC --> MPRM
    c''   3x3 window of y_hat, zero where it is not known yet ---+                                           ^
    c'''  global context (:mod:`jointiq.layers.block_context`) ----------------------------------------------+

The weights for c'' are those of a step, with a bias for each place; the last layers and MPRM are those of a group. All
others serve every step and place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.bitstream.scan import GROUPS, PLACES, QuarterStep, group_of
from jointiq.bitstream.tables import Device
from jointiq.layers.causal_sums import constant
from jointiq.layers.estimator import IntegerHead, ParameterHead
from jointiq.layers.integer_layers import LEAKY_SLOPE, ONE, STRIP_POSITIONS, IntegerLinear, leaky_relu_, to_fixed
from jointiq.layers.padding import Size, crop, pad_to_even

# Side of both windows.
WINDOW = 3


def split_quarters(x: Tensor) -> list[Tensor]:
    """Return each place of the blocks, (B, C, ceil(H / 2), ceil(W / 2)) each, from (B, C, H, W); zero outside."""
    x = pad_to_even(x)
    return [x[..., row::2, column::2] for row, column in PLACES]


def join_quarters(quarters: Sequence[Tensor], size: Size) -> Tensor:
    """Undo :func:`split_quarters`; the result is in the channels-last layout."""
    # By rows of blocks, row, columns of blocks, column; the channels stay next to each other.
    grids = [quarters[PLACES.index((row, column))].permute(0, 2, 3, 1) for row in range(2) for column in range(2)]
    joined = torch.stack(grids, 3).unflatten(3, (2, 2)).transpose(2, 3)
    return crop(joined.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2), size)


def known_before(y_hat: Tensor) -> Tensor:
    """Return what of y_hat (B, M, H, W) each step but the first knows, zero elsewhere: (7, B, M, H, W)."""
    _, M, height, width = y_hat.shape
    steps = torch.arange(1, GROUPS, dtype=torch.int8, device=y_hat.device).view(-1, 1, 1, 1, 1)
    return _channels_last(y_hat) * (_step_of(M, height, width, y_hat.device) < steps)


@constant
def _step_of(M: int, height: int, width: int, device: Device) -> Tensor:
    """Return the step that codes each value of y_hat: (1, M, H, W), int8, channels last."""
    groups = torch.arange(M, device=device).view(-1, 1, 1) % GROUPS
    places = [torch.full((1, 1, (height + 1) // 2, (width + 1) // 2), p, device=device) for p in range(len(PLACES))]
    step = (2 * join_quarters(places, (height, width)) - groups) % GROUPS
    return _channels_last(step.to(torch.int8))


def _channels_last(x: Tensor) -> Tensor:
    """Return the same in the layout of all maps here. Arithmetic between two layouts is five times slower on a CPU."""
    return x.contiguous(memory_format=torch.channels_last)


class QuarterEstimator(nn.Module):
    """f for the order ``quarters``; arguments as those of :class:`jointiq.layers.estimator.ParameterEstimator`."""

    from_groups: Tensor

    def __init__(self, M: int, parameters: int, width: int, mprm_width: int | None, global_context: bool) -> None:
        super().__init__()
        outputs, self.kinds = width * M, parameters // M
        self.hyper_window = nn.Conv2d(M, outputs, WINDOW, padding=WINDOW // 2, bias=False)
        self.known_windows = nn.ModuleList(
            nn.Conv2d(M, outputs, WINDOW, padding=WINDOW // 2, bias=False) for _ in range(1, GROUPS)
        )
        self.bias = nn.Parameter(torch.zeros(GROUPS, len(PLACES), outputs))
        self.hidden = nn.Conv2d(outputs, outputs, 1)
        self.act = nn.LeakyReLU(LEAKY_SLOPE)
        sizes = [len(range(group, M, GROUPS)) for group in range(min(GROUPS, M))]
        context = 2 * M if global_context else 0
        self.heads = nn.ModuleList(
            ParameterHead(outputs, self.kinds * n, context, None if mprm_width is None else mprm_width * n)
            for n in sizes
        )
        # Where each channel lies among those of all groups, one group after the other.
        by_group = torch.tensor([m for group in range(GROUPS) for m in range(group, M, GROUPS)])
        self.register_buffer("from_groups", by_group.argsort(), persistent=False)

    def forward(self, c_prime: Tensor, y_hat: Tensor, c_global: Tensor | None = None) -> Tensor:
        """c_prime, y_hat: (B, M, H, W); c_global: (8, B, 2M, ceil(H / 2), ceil(W / 2)), one for each step, or None."""
        batch, M, height, width = y_hat.shape
        hyper, known = self.hyper_window(_channels_last(c_prime)), known_before(y_hat)
        windows = [hyper, *(hyper + layer(y) for layer, y in zip(self.known_windows, known, strict=True))]
        # By place: (8 B, E, rows of blocks, columns of blocks).
        places = [
            torch.cat(steps) + self.bias[:, place].repeat_interleave(batch, 0)[..., None, None]
            for place, steps in enumerate(zip(*map(split_quarters, windows), strict=True))
        ]
        hidden = [self.act(self.hidden(self.act(place))).split(batch) for place in places]
        # In the type and layout of what MPRM reads beside it.
        contexts = None if c_global is None else _channels_last(c_global.flatten(0, 1).to(hidden[0][0])).split(batch)
        by_group = []
        for group, head in enumerate(self.heads):
            # The step that codes the group at each place: group_of is its own inverse.
            steps = [group_of(group, place) for place in range(len(PLACES))]
            inputs = torch.cat([of_place[step] for of_place, step in zip(hidden, steps, strict=True)])
            parameters = head(inputs, None if contexts is None else torch.cat([contexts[step] for step in steps]))
            by_group.append(parameters.permute(0, 2, 3, 1).unflatten(3, (self.kinds, -1)))
        result = torch.cat(by_group, 4).index_select(4, self.from_groups).flatten(3)
        return join_quarters(result.permute(0, 3, 1, 2).split(batch), (height, width))


class IntegerQuarterEstimator:
    """The integer network of :class:`QuarterEstimator`; an image is coded with the state that :meth:`begin` returns.

    Args:
        layers: ``window``, ``hidden``, and those of :class:`IntegerHead` for each group, named ``group0_...`` to
            ``group7_...``. The inputs of ``window`` are the window of c', then that of y_hat for each step but the
            first, in (row, column, channel) order, then one for each (step, place), 1 for that which is coded.

    Attributes:
        M: channels of y.
        from_hyper, from_known, bias: the transposed weights of ``window``: (9M, E), (9, M, E) for each step but the
            first, and (8, 4, E).
    """

    def __init__(self, layers: Mapping[str, IntegerLinear]) -> None:
        self.layers = dict(layers)
        cases = GROUPS * len(PLACES)
        outputs, inputs = layers["window"].weight.shape
        self.M = (inputs - cases) // (GROUPS * WINDOW**2)
        entries = WINDOW**2 * self.M
        self.from_hyper, *known, bias = layers["window"].split(*[entries] * GROUPS, cases)
        self.from_known = [weight.view(WINDOW**2, self.M, outputs) for weight in known]
        self.bias = bias.view(GROUPS, len(PLACES), outputs)
        self.heads = [IntegerHead(layers, f"group{group}_") for group in range(min(GROUPS, self.M))]
        # The channels of each place in the order of coding; how many of them are known in each step, and at the end.
        channels = [[range(group_of(step, place), self.M, GROUPS) for place in range(4)] for step in range(GROUPS)]
        self.order = [
            torch.tensor(list(chain(*of_place)), device=bias.device) for of_place in zip(*channels, strict=True)
        ]
        self.known = [
            [sum(len(groups[place]) for groups in channels[:step]) for place in range(4)] for step in range(GROUPS + 1)
        ]

    @classmethod
    def quantise(cls, estimator: QuarterEstimator) -> IntegerQuarterEstimator:
        """Quantise the weights of a float f."""
        windows = [layer.weight.permute(0, 2, 3, 1).flatten(1) for layer in _convolutions(estimator)]
        weight = torch.cat([*windows, estimator.bias.flatten(0, 1).T], 1)
        layers = {"window": IntegerLinear.quantise(weight, None), "hidden": IntegerLinear.of_layer(estimator.hidden)}
        for group, head in enumerate(estimator.heads):
            layers |= IntegerHead.quantise(head, f"group{group}_")
        return cls(layers)

    @torch.no_grad()
    def restore(self, estimator: QuarterEstimator) -> None:
        """Set the weights of a float f to what the integers stand for."""
        weight, _ = self.layers["window"].floats()
        *windows, bias = weight.split([*[WINDOW**2 * self.M] * GROUPS, GROUPS * len(PLACES)], 1)
        for layer, part in zip(_convolutions(estimator), windows, strict=True):
            layer.weight.copy_(part.view(len(part), WINDOW, WINDOW, -1).permute(0, 3, 1, 2))
        estimator.bias.copy_(bias.T.reshape(estimator.bias.shape))
        self.layers["hidden"].restore(estimator.hidden)
        for integers, head in zip(self.heads, estimator.heads, strict=True):
            integers.restore(head)

    def weights(self, step: int, place: int) -> Tensor:
        """Return the transposed weights of a step but the first for what a place knows: (inputs, E)."""
        entries = [
            weight[self.order[other][: self.known[step][other]]]
            for weight, (other, _, _) in zip(self.from_known[step - 1], _neighbours(place), strict=True)
        ]
        return torch.cat(entries)

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
        self.grid = c_prime.permute(1, 2, 0)
        # Of each place, with a border of zeros.
        quarters = [F.pad(quarter[0], (1, 1, 1, 1)).permute(1, 2, 0) for quarter in split_quarters(c_prime[None])]
        strip = max(1, STRIP_POSITIONS // quarters[0].shape[1])
        rows = range(0, quarters[0].shape[0] - 2, strip)
        everything = [network.M] * len(PLACES)
        # The sums of c', which all steps read.
        self.from_hyper = [
            torch.cat(
                [_windows(quarters, place, slice(row, row + strip), everything) @ network.from_hyper for row in rows]
            )
            for place in range(len(PLACES))
        ]
        # y_hat of each place with its channels in the order of coding, so that what is known comes first.
        self.y_hat = [torch.zeros_like(quarter, memory_format=torch.contiguous_format) for quarter in quarters]

    def write(self, step: QuarterStep, symbols: Tensor) -> None:
        """Record the symbols of a set, integers, as :meth:`QuarterStep.take` orders them."""
        for place, values in enumerate(step.split(self.grid, to_fixed(symbols))):
            first, last = self.network.known[step.number][place], self.network.known[step.number + 1][place]
            inside = self.y_hat[place][1:-1, 1:-1, first:last][step.blocks]
            inside[: values.shape[0], : values.shape[1]] = values

    def read(self, step: QuarterStep, c_global: Tensor | None) -> list[Tensor]:
        """Return the parameters of a set at each place that is in the grid, (positions, parameters of the group).

        Args:
            step: the set.
            c_global: c''' of its blocks (rows of blocks, columns of blocks, 2M), fixed point, or None.
        """
        network = self.network
        parameters = []
        for place, part in enumerate(step.parts(self.grid)):
            if part.numel() == 0:
                continue
            total = self.from_hyper[place][step.blocks] + network.bias[step.number, place] * ONE
            if step.number:
                total += _windows(self.y_hat, place, step.blocks, network.known[step.number]) @ network.weights(
                    step.number, place
                )
            inside = total[: part.shape[0], : part.shape[1]].flatten(0, 1)
            hidden = network.layers["hidden"](leaky_relu_(network.layers["window"].finish_(inside)))
            context = None if c_global is None else c_global[: part.shape[0], : part.shape[1]].flatten(0, 1)
            parameters.append(network.heads[group_of(step.number, place)](leaky_relu_(hidden), context))
        return parameters


def _neighbours(place: int) -> list[tuple[int, int, int]]:
    """Return the place of each position in the window around one, and how many rows and columns of blocks away."""
    around = [(PLACES[place][0] + row, PLACES[place][1] + column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    return [(PLACES.index((row % 2, column % 2)), row // 2, column // 2) for row, column in around]


def _windows(quarters: Sequence[Tensor], place: int, blocks: slice, channels: Sequence[int]) -> Tensor:
    """Return the windows around a place of some rows of blocks, (rows, columns, inputs).

    Args:
        quarters: of each place (rows of blocks + 2, columns of blocks + 2, C), with a border.
        channels: of each place, how many channels are read, from the first on.
    """
    height, width, _ = quarters[0].shape
    last = min(blocks.stop, height - 2)
    return torch.cat(
        [
            quarters[other][1 + blocks.start + down : 1 + last + down, 1 + right : width - 1 + right, : channels[other]]
            for other, down, right in _neighbours(place)
        ],
        2,
    )


def _convolutions(estimator: QuarterEstimator) -> list[nn.Conv2d]:
    """Return the layers whose outputs add up to what the hidden layer reads."""
    return [layer for layer in (estimator.hyper_window, *estimator.known_windows) if isinstance(layer, nn.Conv2d)]
