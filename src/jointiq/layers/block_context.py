"""Global context c''' for the order ``quarters``: as :mod:`jointiq.layers.global_context`, by 2x2 blocks of positions.

    y_hat --1x1--> y_bar --per channel, over all positions of earlier steps--> weighted mean, standard deviation

A known position is as far away as its block, and the positions of a block share their c'''. The weights psi, one set
for each step but the first, reach (K + 1) // 2 blocks in every direction; all blocks beyond share one more. So a sum
over everything known is a few taps, and what they leave of the total:

    sum(w v) = sum over the blocks within reach (w[offset] * block sum) + w[far] * (total - blocks within reach)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.bitstream.scan import PLACES, QuarterStep
from jointiq.bitstream.tables import EXP_STEP_BITS
from jointiq.layers.global_context import (
    CONTEXT_WEIGHT_BITS,
    VALUE_FRACTION_BITS,
    VALUE_MAX,
    fixed_context,
    integer_weights,
    mean_and_deviation,
)
from jointiq.layers.integer_layers import STRIP_POSITIONS, IntegerLinear, require_finite, to_fixed
from jointiq.layers.quarters import STEPS, split_quarters


def reach_of(K: int) -> int:
    """Blocks that the trained weights reach in each direction, for a reach of K positions."""
    return (K + 1) // 2


def weight_count(K: int) -> int:
    """Weights psi of a channel: for steps 1 to 3, of the blocks within reach, row by row, then of all beyond."""
    return (STEPS - 1) * ((2 * reach_of(K) + 1) ** 2 + 1)


class BlockContext(nn.Module):
    """c''' of every step: (B, M, H, W) -> (4, B, 2M, ceil(H / 2), ceil(W / 2)), means then standard deviations.

    It is zero where too little is known, and so in step 0.

    Args:
        M: channels of y_hat.
        K: reach of the trained weights psi, in latent positions.
        min_known: positions that must be known before c''' is used.
    """

    def __init__(self, M: int, K: int, min_known: int) -> None:
        super().__init__()
        self.K = K
        self.min_known = min_known
        self.transform = nn.Conv2d(M, M, 1)
        self.psi = nn.Parameter(torch.zeros(M, weight_count(K)))

    def forward(self, y_hat: Tensor) -> Tensor:
        with torch.autocast(y_hat.device.type, enabled=False):
            y_bar = self.transform(y_hat.float())
            # A variance does not depend on where zero is; near the mean its one-pass formula does not cancel.
            origin = y_bar.mean(dim=(2, 3), keepdim=True).detach()
            centred = y_bar - origin
            moments = split_quarters(torch.cat([centred, centred.square()], 1))
            counts = split_quarters(torch.ones_like(y_bar[:1, :1]))
            steps = [torch.zeros_like(moments[0])]
            for step, psi in enumerate(self.psi.float().chunk(STEPS - 1, 1), start=1):
                weights = torch.exp(psi - psi.amax(1, keepdim=True).detach())
                known = counts[0] if step == 1 else torch.stack(counts[:step]).sum(0)
                sums = moments[0] if step == 1 else torch.stack(moments[:step]).sum(0)
                weight_sum = self._weighted(weights, known)
                # Where nothing is known the sum is zero and so is c'''; the 1 only keeps the division defined.
                weight_sum = torch.where(weight_sum > 0, weight_sum, 1)
                value_sum, square_sum = self._weighted(weights.repeat(2, 1), sums, known).chunk(2, 1)
                square_weights = self._weighted(weights.square(), known)
                mean, deviation = mean_and_deviation(weight_sum, square_weights, value_sum, square_sum)
                active = known.sum() >= self.min_known
                steps.append(torch.cat([mean + origin, deviation], 1) * active)
            return torch.stack(steps)

    def _weighted(self, weights: Tensor, sums: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the weighted sums of block sums (B, C or 1, h, w), from weights (C, taps + 1): (B, C, h, w)."""
        side = 2 * reach_of(self.K) + 1
        near, far = weights[:, :-1].view(-1, 1, side, side), weights[:, -1].view(-1, 1, 1)
        beyond = _beyond(sums, side)
        if known is not None:
            # Exactly nothing, where the difference of two sums would leave their rounding.
            beyond = beyond * (_beyond(known, side) > 0)
        return F.conv2d(sums, near, padding=side // 2, groups=sums.shape[1]) + far * beyond


def _beyond(sums: Tensor, side: int) -> Tensor:
    """Return the sum over all blocks but those in the square around each."""
    within = F.avg_pool2d(sums, side, stride=1, padding=side // 2, divisor_override=1)
    return sums.sum(dim=(2, 3), keepdim=True) - within


class IntegerBlockContext:
    """The integer network of :class:`BlockContext`; an image is coded with the state that :meth:`begin` returns.

    Args:
        transform: the 1x1 layer.
        weights: (M, :func:`weight_count`) int64, exp(psi) relative to the largest of the step, 1 .. 2^16.
        K, min_known: as in :class:`BlockContext`.
    """

    def __init__(self, transform: IntegerLinear, weights: Tensor, K: int, min_known: int) -> None:
        self.transform = transform
        self.weights = weights
        self.K, self.min_known = K, min_known
        # Of steps 1 to 3, (taps + 1, ...): of the counts, M, and of the two moments, 2M.
        self.step_weights = [part.T.contiguous() for part in weights.double().chunk(STEPS - 1, 1)]
        self.moment_weights = [part.repeat(1, 2) for part in self.step_weights]

    @classmethod
    def quantise(cls, module: BlockContext) -> IntegerBlockContext:
        """Quantise a float module; psi in steps of 1/256."""
        transform = IntegerLinear.of_layer(module.transform, VALUE_FRACTION_BITS)
        require_finite(module.psi)
        psi = torch.round(module.psi.detach().double() * (1 << EXP_STEP_BITS)).long()
        weights = torch.cat([integer_weights(part, part.amax(1, keepdim=True)) for part in psi.chunk(STEPS - 1, 1)], 1)
        return cls(transform, weights, module.K, module.min_known)

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
        self.size = (height + 1) // 2, (width + 1) // 2
        # How many positions are known in each step.
        sizes = [(height - row + 1) // 2 * ((width - column + 1) // 2) for row, column in PLACES]
        self.known = [sum(sizes[:place]) for place in range(STEPS)]
        rows, columns = (length + 2 * self.reach for length in self.size)
        M = len(network.weights)
        # Of each block: sums of y_bar and of its square over what is known, and how much that is; zeros around.
        self.sums = network.weights.new_zeros(rows, columns, 2 * M, dtype=torch.float64)
        self.counts = network.weights.new_zeros(rows, columns, dtype=torch.float64)
        self.place, self.context = 0, self.sums.new_zeros(*self.size, 2 * M)

    def write(self, step: QuarterStep, y_hat: Tensor) -> None:
        """Record y_hat (step.count, M), integers, of a step just coded."""
        if step.place == STEPS - 1:
            return
        y_bar = self.network.transform(to_fixed(y_hat)).clamp_(-VALUE_MAX, VALUE_MAX)
        moments = torch.cat([y_bar, y_bar.square()], 1).view(step.rows, step.columns, -1)
        for blocks, values in ((self.sums, moments), (self.counts, 1)):
            blocks[self.reach :, self.reach :][step.blocks] += values

    def read(self, step: QuarterStep) -> Tensor:
        """Return c''' of a step: (step.count, 2M), fixed point in float64."""
        if step.place != self.place:
            # Before the first of its positions is written: a step does not know itself.
            self.place, self.context = step.place, self._context(step.place)
        return self.context[step.blocks].flatten(0, 1)

    def _context(self, place: int) -> Tensor:
        """Return c''' of all blocks in a step, (rows of blocks, columns of blocks, 2M)."""
        rows, columns = self.size
        if self.known[place] < self.network.min_known:
            return self.sums.new_zeros(rows, columns, self.sums.shape[2])
        weights, moment_weights = self.network.step_weights[place - 1], self.network.moment_weights[place - 1]
        total, side = self.sums.sum((0, 1)), 2 * self.reach + 1
        strip = max(1, STRIP_POSITIONS // (4 * columns))
        parts = []
        for top in range(0, rows, strip):
            lines = slice(top, min(rows, top + strip) + 2 * self.reach)
            moments = self._weighted(self.sums[lines], moment_weights, total)
            near = self.counts[lines].unfold(0, side, 1).unfold(1, side, 1).flatten(2)
            counts = torch.cat([near, self.known[place] - near.sum(2, keepdim=True)], 2)
            weight_sums = ((counts @ each).long() for each in (weights, weights.square()))
            parts.append(fixed_context(*weight_sums, *moments.chunk(2, 2)))
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
