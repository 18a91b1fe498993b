"""Global context c''' (JointIQ-Net section 4.3, Eq. 4 to 6).

    y_hat --1x1--> y_bar --per channel, over all known positions--> weighted mean, weighted standard deviation

The weight of a known position is a softmax over the known set of psi[dr, dc], where (dr, dc) is its offset from the
current position, each clipped to +-K: everything farther than K shares the nearest trained value. Two places where we
depart from the letter of the paper: Eq. 5 prints the denominator 1 - sum(w), which is zero; it is 1 - sum(w^2). And
where that denominator comes near zero (one position holds all the weight) it is held at ``DENOMINATOR_MIN``.

Three forms of the same sums: the naive definition (in the tests), the dense one (training patches: one weight matrix a
channel) and the one in linear time (:mod:`jointiq.layers.causal_sums`), which the integer network runs. The last has
gradients for the values, not for the weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.bitstream.scan import Scan, ScanStep
from jointiq.bitstream.tables import EXP_BITS, EXP_ENTRIES, EXP_STEP_BITS, exp_table
from jointiq.layers.causal_sums import CausalSums, dense_index, region_counts, tap_is_known
from jointiq.layers.integer_layers import FRACTION_BITS, IntegerLinear, clamp_fixed_, require_finite, to_fixed

DENOMINATOR_MIN = 2.0**-10
# Keeps the gradient of the square root finite where all known values are equal.
VARIANCE_EPS = 1e-6
# Up to here one (positions x positions) matrix a channel is faster than the sums in linear time.
DENSE_POSITIONS = 256


class GlobalContext(nn.Module):
    """c''' of every position: (B, M, H, W) -> (B, 2M, H, W), means then standard deviations; zero where too little is
    known.

    Args:
        M: channels of y_hat.
        K: reach of the trained weights psi, in latent positions.
        min_known: positions that must be known before c''' is used (30 in section 5).
        scan: decides what is known.

    ``psi`` is (M, K + 1, 2K + 1): rows above (0 .. K, K meaning K and more), columns from K and more to the left to K
    and more to the right.
    """

    def __init__(self, M: int, K: int, min_known: int, scan: Scan) -> None:
        super().__init__()
        self.K = K
        self.min_known = min_known
        self.scan = scan
        self.transform = nn.Conv2d(M, M, 1)
        self.psi = nn.Parameter(torch.zeros(M, K + 1, 2 * K + 1))

    def forward(self, y_hat: Tensor) -> Tensor:
        with torch.autocast(y_hat.device.type, enabled=False):
            y_bar = self.transform(y_hat.float())
            weights = self.relative_weights()
            # A variance does not depend on where zero is; near the mean its one-pass formula does not cancel.
            origin = y_bar.mean(dim=(2, 3), keepdim=True).detach()
            centred = y_bar - origin
            height, width = y_bar.shape[-2:]
            trained = torch.is_grad_enabled() and weights.requires_grad
            sums = self._dense if trained or height * width <= DENSE_POSITIONS else self._linear
            weight_sum, weight_square_sum, value_sum, square_sum = sums(weights, centred)
            mean, deviation = mean_and_deviation(weight_sum, weight_square_sum, value_sum, square_sum)
            active = self._known(height, width, y_bar.device).sum(-1).view(height, width) >= self.min_known
            return torch.cat([mean + origin, deviation], 1).float() * active

    def relative_weights(self) -> Tensor:
        """exp(psi - its largest known entry), (M, K + 1, 2K + 1), zero where the scan knows nothing."""
        known = tap_is_known(self.scan, self.K, self.psi.device)
        psi = self.psi.float().masked_fill(~known, -torch.inf)
        return torch.exp(psi - psi.amax(dim=(1, 2), keepdim=True).detach())

    def _known(self, height: int, width: int, device: torch.device) -> Tensor:
        return region_counts(self.scan, self.K, height, width, device)

    def _dense(self, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the sums of w, w^2, w v, w v^2 over the known positions, through one weight matrix a channel."""
        batch, channels, height, width = values.shape
        index = dense_index(self.scan, self.K, height, width, values.device)
        # Of all gathers index_select has the fastest gradient.
        entries = F.pad(weights.flatten(1), (0, 1))
        matrix = entries.index_select(1, index).view(channels, height * width, height * width)
        flat = values.flatten(2).permute(1, 2, 0)
        moments = torch.cat([flat, flat.square()], 2)
        sums = torch.bmm(matrix, moments).permute(2, 0, 1).unflatten(2, (height, width))
        value_sum, square_sum = sums.split(batch)
        return *self._weight_sums(weights.flatten(1), height, width), value_sum, square_sum

    def _linear(self, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the same in time linear in the number of positions, in float64; no gradients for the weights."""
        _, _, height, width = values.shape
        weights = weights.double().flatten(1)
        weight_sums = self._weight_sums(weights, height, width)
        moments = torch.cat([values, values.square()], 1).double().permute(0, 2, 3, 1)
        weights = weights.repeat(2, 1).T.contiguous()
        linear = _LinearSums.apply if moments.requires_grad else _grid_sums
        sums = linear(moments, weights, self.scan, self.K)
        value_sum, square_sum = sums.permute(0, 3, 1, 2).chunk(2, 1)
        return *weight_sums, value_sum, square_sum

    def _weight_sums(self, weights: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return sums of w and w^2 over the positions known to each, (1, M, height, width); weights (M, taps)."""
        counts = self._known(height, width, weights.device).to(weights.dtype)
        sums, square_sums = ((counts @ w.T).T.reshape(1, -1, height, width) for w in (weights, weights.square()))
        # Where nothing is known the sum is zero and so is c'''; the 1 only keeps the division defined.
        return torch.where(sums > 0, sums, torch.ones_like(sums)), square_sums


def _grid_sums(values: Tensor, weights: Tensor, scan: Scan, K: int) -> Tensor:
    """Return weighted sums over the known positions of grids (B, H, W, C) by weights (taps, C): the same shape."""
    return torch.stack([CausalSums.of_grid(scan, K, weights, image) for image in values])


class _LinearSums(torch.autograd.Function):
    """:func:`_grid_sums` with a gradient for the values.

    Whether one position is known to another, and its weight, depend on their offset alone. So the gradient, which
    gathers over all positions that know one, is the same sum on grids turned by half a circle.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, scan: Scan, K: int) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.scan, ctx.K = scan, K
        return _grid_sums(values, weights, scan, K)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weights,) = ctx.saved_tensors
        return _grid_sums(grad.flip(1, 2), weights, ctx.scan, ctx.K).flip(1, 2), None, None, None


def mean_and_deviation(
    weight_sum: Tensor, weight_square_sum: Tensor, value_sum: Tensor, square_sum: Tensor
) -> tuple[Tensor, Tensor]:
    """Return weighted mean and standard deviation (Eq. 4 and 5) from the sums of w, w^2, w v and w v^2."""
    mean = value_sum / weight_sum
    variance = (square_sum / weight_sum - mean.square()).clamp(min=0)
    denominator = (1 - weight_square_sum / weight_sum.square()).clamp(min=DENOMINATOR_MIN)
    return mean, torch.sqrt(variance / denominator + VARIANCE_EPS)


# Integers of the integer network: weights of 16 bits, values y_bar of 15 bits (steps of 1/64, range +-256). The sum of
# weight x value^2 over 2^18 positions (jointiq.bitstream.scan.MAX_POSITIONS) then stays below 2^62.
# With K up to 16 the (2K - 1) K products of single values add up to less than 2^53, exact in float64.
MAX_K = 16
CONTEXT_WEIGHT_BITS = 16
VALUE_FRACTION_BITS = 6
VALUE_MAX = (1 << 14) - 1
_MEAN_BITS = 12
_RATIO_BITS = 28
_ROOT_BITS = 3


class IntegerGlobalContext:
    """The integer network of :class:`GlobalContext`; an image is coded with the state that :meth:`begin` returns.

    Args:
        transform: the 1x1 layer.
        weights: (M, (K + 1)(2K + 1)) int64, exp(psi) relative to the largest known entry, 1 .. 2^16, zero where
            nothing is ever known.
        scan, K, min_known: as in :class:`GlobalContext`.
    """

    def __init__(self, transform: IntegerLinear, weights: Tensor, scan: Scan, K: int, min_known: int) -> None:
        self.transform = transform
        self.weights = weights
        self.scan, self.K, self.min_known = scan, K, min_known
        self.moment_weights = weights.repeat(2, 1).T.contiguous()
        self.float_weights = weights.T.double()

    @classmethod
    def quantise(cls, module: GlobalContext) -> IntegerGlobalContext:
        """Quantise a float module; psi in steps of 1/256."""
        transform = IntegerLinear.of_layer(module.transform, VALUE_FRACTION_BITS)
        require_finite(module.psi)
        known = tap_is_known(module.scan, module.K, module.psi.device).flatten()
        psi = torch.round(module.psi.detach().double() * (1 << EXP_STEP_BITS)).long().flatten(1)
        largest = psi.masked_fill(~known, torch.iinfo(torch.int64).min).amax(1, keepdim=True)
        weights = integer_weights(psi, largest) * known
        return cls(transform, weights, module.scan, module.K, module.min_known)

    @torch.no_grad()
    def restore(self, module: GlobalContext) -> None:
        """Set a float module to what the integers stand for."""
        self.transform.restore(module.transform)
        weights = self.weights.double().clamp(min=1) / (1 << CONTEXT_WEIGHT_BITS)
        module.psi.copy_(weights.log().view_as(module.psi))

    def begin(self, height: int, width: int) -> GlobalContextState:
        """Begin an image with a latent grid of (height, width)."""
        return GlobalContextState(self, height, width)


class GlobalContextState:
    """State of the global context of one image: sums over the y_hat that has been written."""

    def __init__(self, network: IntegerGlobalContext, height: int, width: int) -> None:
        self.network = network
        weights, K = network.moment_weights, network.K
        self.sums = CausalSums(network.scan, K, weights, height, width)
        self.counts = region_counts(network.scan, K, height, width, weights.device).view(height, width, -1)
        self.float_squares = network.float_weights.square()

    def _moments(self, y_hat: Tensor) -> Tensor:
        y_bar = self.network.transform(to_fixed(y_hat)).clamp_(-VALUE_MAX, VALUE_MAX)
        return torch.cat([y_bar, y_bar.square()], -1)

    def write(self, step: ScanStep, symbols: Tensor) -> None:
        """Record the symbols of a step just coded, integers, position by position."""
        self.sums.write(step, self._moments(symbols.view(step.count, -1)))

    def write_grid(self, y_hat: Tensor) -> None:
        """Record a whole y_hat (h, w, M): the encoder's side."""
        self.sums.write_grid(self._moments(y_hat.flatten(0, 1)).view(*y_hat.shape[:2], -1))

    def read(self, step: ScanStep) -> Tensor:
        """Return c''' of a step: (step.count, 2M), fixed point in float64."""
        counts = self.counts[step.index(self.counts.device)]
        active = counts.sum(1) >= self.network.min_known
        result = counts.new_zeros(step.count, 2 * self.network.weights.shape[0], dtype=torch.float64)
        if not bool(active.any()):
            return result
        # Exact in float64: weights < 2^17, their squares < 2^33, at most 2^18 positions.
        counts = counts.double()
        weight_sum = (counts @ self.network.float_weights).long()
        weight_square_sum = (counts @ self.float_squares).long()
        value_sum, square_sum = self.sums.read(step).chunk(2, 1)
        sums = (part[active] for part in (weight_sum, weight_square_sum, value_sum, square_sum))
        result[active] = fixed_context(*sums)
        return result


def integer_weights(psi: Tensor, largest: Tensor) -> Tensor:
    """Return exp(psi - largest), 1 .. 2^16, from psi in steps of 1/256; int64."""
    drop = (largest - psi).clamp_(0, EXP_ENTRIES - 1)
    return (exp_table(psi.device)[drop] >> (EXP_BITS - CONTEXT_WEIGHT_BITS)).clamp_(min=1)


def fixed_context(weight_sum: Tensor, weight_square_sum: Tensor, value_sum: Tensor, square_sum: Tensor) -> Tensor:
    """Return c''' (..., 2M), fixed point in float64, from the sums of :func:`weighted_moments`, (..., M) each."""
    mean, deviation = weighted_moments(weight_sum, weight_square_sum, value_sum, square_sum)
    shift = VALUE_FRACTION_BITS + _MEAN_BITS - FRACTION_BITS
    mean = (mean + (1 << (shift - 1))) >> shift
    deviation = deviation << (FRACTION_BITS - VALUE_FRACTION_BITS - _ROOT_BITS)
    return clamp_fixed_(torch.cat([mean, deviation], -1).double())


def weighted_moments(
    weight_sum: Tensor, weight_square_sum: Tensor, value_sum: Tensor, square_sum: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted mean (12 fractional bits below the values) and standard deviation (3 bits below), int64, rounded down.

    From the sums of w, w^2, w v and w v^2. Bounds with 2^18 positions: w <= 2^16, weight_sum <= 2^34, value_sum < 2^48,
    square_sum < 2^62, weight_square_sum <= 2^50; no intermediate reaches 2^63.
    """
    mean = (value_sum << _MEAN_BITS) // weight_sum
    whole, rest = square_sum // weight_sum, square_sum % weight_sum
    mean_square = (whole << (2 * _MEAN_BITS)) + (rest << (2 * _MEAN_BITS)) // weight_sum
    variance = (mean_square - mean * mean).clamp_(min=0)
    # sum(w^2) / sum(w)^2 in 28 bits, by two divisions.
    whole, rest = weight_square_sum // weight_sum, weight_square_sum % weight_sum
    share = ((whole << _RATIO_BITS) + (rest << _RATIO_BITS) // weight_sum) // weight_sum
    denominator = ((1 << _RATIO_BITS) - share).clamp_(min=int(DENOMINATOR_MIN * (1 << _RATIO_BITS)))
    # variance has 24 fractional bits; the quotient gets 6, twice those of its root.
    up = _RATIO_BITS + 2 * _ROOT_BITS - _MEAN_BITS
    return mean, integer_sqrt(((variance >> _MEAN_BITS) << up) // denominator)


def integer_sqrt(x: Tensor) -> Tensor:
    """floor(sqrt(x)) of int64 below 2^62: a float root, corrected by one where it rounded across an integer."""
    root = x.double().sqrt().floor().long()
    root = root - (root * root > x).long()
    return root + ((root + 1) * (root + 1) <= x).long()
