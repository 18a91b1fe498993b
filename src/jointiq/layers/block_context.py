"""Global context c''' for the order ``quarters``: as :mod:`jointiq.layers.global_context`, by 2x2 blocks of positions.

    y_hat, zero where not known --1x1--> y_bar --per channel, over all positions--> weighted mean, standard deviation

From the second step on a part of the channels is known at every position, so every position takes part in every sum. A
position is as far away as its block, and the positions of a block share their c'''. The weights psi reach (K + 1) // 2
blocks in every direction; all blocks beyond share one more. So a sum over everything is a few taps, and what they leave
of the total:

    sum(w v) = sum over the blocks within reach (w[offset] * block sum) + w[far] * (total - blocks within reach)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.bitstream.scan import GROUPS, PLACES, QuarterStep, group_of
from jointiq.bitstream.tables import EXP_STEP_BITS, Device
from jointiq.layers.causal_sums import constant
from jointiq.layers.global_context import (
    CONTEXT_WEIGHT_BITS,
    DENSE_POSITIONS,
    VALUE_FRACTION_BITS,
    VALUE_MAX,
    fixed_context,
    integer_weights,
    mean_and_deviation,
)
from jointiq.layers.integer_layers import STRIP_POSITIONS, IntegerLinear, require_finite, to_fixed
from jointiq.layers.padding import pad_to_even
from jointiq.layers.quarters import known_before


def reach_of(K: int) -> int:
    """Blocks that the trained weights reach in each direction, for a reach of K positions."""
    return (K + 1) // 2


def weight_count(K: int) -> int:
    """Weights psi of a channel: of the blocks within reach, row by row, then of all beyond."""
    return (2 * reach_of(K) + 1) ** 2 + 1


class BlockContext(nn.Module):
    """c''' of every step: (B, M, H, W) -> (8, B, 2M, ceil(H / 2), ceil(W / 2)), means then standard deviations.

    It is zero in the first step, which knows nothing, and in grids of fewer than ``min_known`` positions.

    Args:
        M: channels of y_hat.
        K: reach of the trained weights psi, in latent positions.
        min_known: positions that there must be before c''' is used.
    """

    def __init__(self, M: int, K: int, min_known: int) -> None:
        super().__init__()
        self.K = K
        self.min_known = min_known
        self.transform = nn.Conv2d(M, M, 1)
        self.psi = nn.Parameter(torch.zeros(M, weight_count(K)))

    def forward(self, y_hat: Tensor) -> Tensor:
        with torch.autocast(y_hat.device.type, enabled=False):
            known = known_before(y_hat.float())
            y_bar = self.transform(known.flatten(0, 1))
            # A variance does not depend on where zero is; near the mean its one-pass formula does not cancel.
            origin = y_bar.mean(dim=(2, 3), keepdim=True).detach()
            centred = y_bar - origin
            sums = _block_sums(torch.cat([centred, centred.square()], 1))
            counts = _block_sums(torch.ones_like(y_bar[:1, :1]))
            psi = self.psi.float()
            weights = torch.exp(psi - psi.amax(1, keepdim=True).detach())
            weighted = _dense if counts.numel() <= DENSE_POSITIONS else _near_and_far
            mean, deviation = mean_and_deviation(*weighted(weights, sums, counts, reach_of(self.K)))
            active = y_hat.shape[2] * y_hat.shape[3] >= self.min_known
            c_global = (torch.cat([mean + origin, deviation], 1) * active).unflatten(0, known.shape[:2])
            return torch.cat([torch.zeros_like(c_global[:1]), c_global])


def _dense(weights: Tensor, sums: Tensor, counts: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the sums of w, w^2, w v and w v^2 seen from every block, by one matrix (blocks, blocks) a channel.

    With its gradient this is the fastest form for patches.

    Args:
        weights: (M, taps + 1).
        sums: of each block, of v and of v^2: (B, 2M, h, w).
        counts: positions of each block, (1, 1, h, w).
        reach: blocks that the taps reach in each direction.
    """
    batch, _, height, width = sums.shape
    taps = _tap_index(reach, height, width, weights.device)
    matrix = weights.index_select(1, taps.flatten()).unflatten(1, taps.shape)
    weight_sum, square_weight_sum = (each @ counts.flatten() for each in (matrix, matrix.square()))
    blocks = sums.view(batch, 2, -1, height * width).permute(2, 3, 1, 0).flatten(2)
    value_sum, square_sum = torch.bmm(matrix, blocks).permute(2, 0, 1).unflatten(2, (height, width)).split(batch)
    grid = (1, -1, height, width)
    return weight_sum.view(grid), square_weight_sum.view(grid), value_sum, square_sum


def _near_and_far(weights: Tensor, sums: Tensor, counts: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same in time linear in the number of blocks."""
    side = 2 * reach + 1
    # Exactly nothing, where the difference of two sums would leave their rounding.
    any_beyond = _beyond(counts, side) > 0

    def weighted(weights: Tensor, sums: Tensor) -> Tensor:
        near, far = weights[:, :-1].view(-1, 1, side, side), weights[:, -1].view(-1, 1, 1)
        return F.conv2d(sums, near, padding=side // 2, groups=sums.shape[1]) + far * any_beyond * _beyond(sums, side)

    value_sum, square_sum = weighted(weights.repeat(2, 1), sums).chunk(2, 1)
    return weighted(weights, counts), weighted(weights.square(), counts), value_sum, square_sum


def _beyond(sums: Tensor, side: int) -> Tensor:
    """Return the sum over all blocks but those in the square around each."""
    within = F.avg_pool2d(sums, side, stride=1, padding=side // 2, divisor_override=1)
    return sums.sum(dim=(2, 3), keepdim=True) - within


@constant
def _tap_index(reach: int, height: int, width: int, device: Device) -> Tensor:
    """Return which weight each block (columns) has, seen from each (rows): (blocks, blocks), int64, of a grid."""
    rows, columns = (torch.arange(side) for side in (height, width))
    down, right = rows[None, :] - rows[:, None] + reach, columns[None, :] - columns[:, None] + reach
    side = 2 * reach + 1
    down, right = down[:, None, :, None], right[None, :, None, :]
    near = (down >= 0) & (down < side) & (right >= 0) & (right < side)
    taps = torch.where(near, down * side + right, side**2)
    return taps.reshape(height * width, height * width).to(device)


def _block_sums(x: Tensor) -> Tensor:
    """Return the sums over 2x2 blocks: (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))."""
    return F.avg_pool2d(pad_to_even(x), 2, divisor_override=1)


class IntegerBlockContext:
    """The integer network of :class:`BlockContext`; an image is coded with the state that :meth:`begin` returns.

    Args:
        transform: the 1x1 layer.
        weights: (M, :func:`weight_count`) int64, exp(psi) relative to the largest of the channel, 1 .. 2^16.
        K, min_known: as in :class:`BlockContext`.
    """

    def __init__(self, transform: IntegerLinear, weights: Tensor, K: int, min_known: int) -> None:
        self.transform = transform
        self.weights = weights
        self.K, self.min_known = K, min_known
        self.M = len(weights)
        # The transposed weights of the layer for each group of channels.
        self.groups = [transform.split(self.M)[0][group::GROUPS] for group in range(GROUPS)]
        # (taps + 1, ...): of the counts, M, and of the two moments, 2M.
        self.count_weights = weights.double().T.contiguous()
        self.moment_weights = self.count_weights.repeat(1, 2)

    @classmethod
    def quantise(cls, module: BlockContext) -> IntegerBlockContext:
        """Quantise a float module; psi in steps of 1/256."""
        transform = IntegerLinear.of_layer(module.transform, VALUE_FRACTION_BITS)
        require_finite(module.psi)
        psi = torch.round(module.psi.detach().double() * (1 << EXP_STEP_BITS)).long()
        return cls(transform, integer_weights(psi, psi.amax(1, keepdim=True)), module.K, module.min_known)

    @torch.no_grad()
    def restore(self, module: BlockContext) -> None:
        """Set a float module to what the integers stand for."""
        self.transform.restore(module.transform)
        module.psi.copy_((self.weights.double() / (1 << CONTEXT_WEIGHT_BITS)).log())

    def begin(self, height: int, width: int) -> BlockContextState:
        """Begin an image with a latent grid of (height, width)."""
        return BlockContextState(self, height, width)


class BlockContextState:
    """c''' of one image, from what has been written of its y_hat.

    Block sums and their products with a row of weights are below 2^53, exact in float64; whole sums are int64.
    """

    def __init__(self, network: IntegerBlockContext, height: int, width: int) -> None:
        self.network = network
        self.reach = reach_of(network.K)
        # What the 1x1 layer sums up at each position, of what is known there.
        self.total = network.count_weights.new_zeros(height, width, network.M)
        self.blocks = (height + 1) // 2, (width + 1) // 2
        # How many positions each block has; a border of zeros.
        counts = self.total.new_ones(1, 1, height, width)
        self.counts = F.pad(_block_sums(counts)[0, 0], (self.reach,) * 4)
        self.number, self.context = 0, self.total.new_zeros(*self.blocks, 2 * network.M)

    def write(self, step: QuarterStep, symbols: Tensor) -> None:
        """Record the symbols of a set just coded, integers, as :meth:`QuarterStep.take` orders them."""
        for place, values in enumerate(step.split(self.total, to_fixed(symbols))):
            row, column = PLACES[place]
            known = self.total[2 * step.top + row : 2 * step.bottom : 2, column::2]
            known += values @ self.network.groups[group_of(step.number, place)]

    def read(self, step: QuarterStep) -> Tensor:
        """Return c''' of the blocks of a set: (rows of blocks, columns of blocks, 2M), fixed point in float64."""
        if step.number != self.number:
            # Before the first of its symbols is written: a step does not know itself.
            self.number = step.number
            if self.total.shape[0] * self.total.shape[1] >= self.network.min_known:
                self.context = self._context()
        return self.context[step.blocks]

    def _context(self) -> Tensor:
        """Return c''' of all blocks, (rows of blocks, columns of blocks, 2M)."""
        network, reach = self.network, self.reach
        y_bar = network.transform.finish_(self.total.clone()).clamp_(-VALUE_MAX, VALUE_MAX)
        moments = _block_sums(torch.cat([y_bar, y_bar.square()], 2).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        sums = F.pad(moments, (0, 0, reach, reach, reach, reach))
        rows, columns = self.blocks
        total, count, side = moments.sum((0, 1)), self.counts.sum(), 2 * reach + 1
        strip = max(1, STRIP_POSITIONS // (4 * columns))
        parts = []
        for top in range(0, rows, strip):
            lines = slice(top, min(rows, top + strip) + 2 * reach)
            weighted = self._weighted(sums[lines], network.moment_weights, total)
            near = self.counts[lines].unfold(0, side, 1).unfold(1, side, 1).flatten(2)
            counts = torch.cat([near, count - near.sum(2, keepdim=True)], 2)
            weight_sums = ((counts @ each).long() for each in (network.count_weights, network.count_weights.square()))
            parts.append(fixed_context(*weight_sums, *weighted.chunk(2, 2)))
        return torch.cat(parts)

    def _weighted(self, blocks: Tensor, weights: Tensor, total: Tensor) -> Tensor:
        """Return the weighted moments of all that is known, int64, from block sums with ``reach`` more on each side."""
        side = 2 * self.reach + 1
        height, width = blocks.shape[0] - side + 1, blocks.shape[1] - side + 1
        result = blocks.new_zeros(height, width, weights.shape[1], dtype=torch.int64)
        for row in range(side):
            near = blocks.new_zeros(result.shape)
            for column in range(side):
                near.addcmul_(blocks[row : row + height, column : column + width], weights[row * side + column])
            result += near.long()
        lines = sum((blocks[row : row + height] for row in range(1, side)), blocks[:height])
        within = sum((lines[:, column : column + width] for column in range(1, side)), lines[:, :width])
        return result + (total - within).long() * weights[-1].long()
