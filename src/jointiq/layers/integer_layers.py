"""Integer layers: integers carried in float64, with results that no device, thread count or batch shape can change.

    activation  a = round(x * 2^12), |a| < 2^23            (range +-2048, step 1/4096)
    weight      w = round(x * 2^k),  |w| <= 2^13, one k per output channel
    layer       a' = clamp(floor((sum w a + b) / 2^k + 1/2))

Every product and partial sum is an integer below 2^52, so float64 holds it exactly in whatever order it is added; this
is checked against the actual weights when a layer is made. Matrix products only: a convolution routine may go through
Winograd or FFT, which are not exact. Weights come from their float originals by a power-of-two scale and rounding, both
exact in IEEE arithmetic, so that every machine derives the same integers from the same checkpoint.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.errors import ModelError

FRACTION_BITS = 12
ONE = 1 << FRACTION_BITS
ACTIVATION_MAX = (1 << 23) - 1
#: Of the LeakyReLUs of the float networks that are coded with: a power of two, by which
#: integers are shifted (the authors of the coarse-to-fine model have 0.2).
LEAKY_SLOPE = 0.125
WEIGHT_BITS = 13
EXACT_LIMIT = 2.0**52
MAX_SHIFT = 30
# Positions of a strip, where an image is too large to be taken as a whole.
STRIP_POSITIONS = 1 << 12


def clamp_fixed_(a: Tensor) -> Tensor:
    """Clamp activations to their range, in place."""
    return a.clamp_(-ACTIVATION_MAX, ACTIVATION_MAX)


def to_fixed(x: Tensor) -> Tensor:
    """Convert integers (any dtype) to fixed-point activations, clamped to their range."""
    return clamp_fixed_(x.double() * ONE)


def leaky_relu_(a: Tensor) -> Tensor:
    """Apply LeakyReLU with slope 1/8 to integers in place, rounding down."""
    return torch.maximum(a, (a * LEAKY_SLOPE).floor_(), out=a)


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2^exponent, float64, by its bits: ``pow`` and ``ldexp`` of a device go through float32 and may round."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)


def require_finite(*weights: Tensor) -> None:
    """Refuse weights that cannot be quantised.

    Raises:
        ModelError: one is NaN or infinite.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise ModelError("weights of the entropy model are not finite; the training diverged or the file is damaged")


class IntegerLinear:
    """A fully connected layer on integers: (rows, inputs) -> (rows, outputs), float64 holding integers.

    Attributes:
        weight: (outputs, inputs) integers.
        bias: (outputs,) integers at the scale of the products.
        shift: (outputs,) the k of each output channel.
        fraction_bits: of the results; 12, those of activations, by default.

    Raises:
        ModelError: the weights are so large that their sums would not be exact.
    """

    def __init__(self, weight: Tensor, bias: Tensor, shift: Tensor, fraction_bits: int = FRACTION_BITS) -> None:
        self.weight = weight.double()
        self.bias = bias.double()
        self.shift = shift
        self.fraction_bits = fraction_bits
        largest = self.weight.abs().sum(1) * ACTIVATION_MAX + self.bias.abs()
        if not bool((largest < EXACT_LIMIT).all()):
            raise ModelError("weights of the entropy model are too large to be summed exactly; the model is damaged")
        self._columns = self.weight.T.contiguous()
        self._scale = power_of_two(fraction_bits - FRACTION_BITS - shift)
        self._scaled_bias = self.bias * self._scale + 0.5

    @classmethod
    def quantise(cls, weight: Tensor, bias: Tensor | None, fraction_bits: int = FRACTION_BITS) -> IntegerLinear:
        """Quantise a float layer: weight (outputs, inputs), bias (outputs,) or None.

        Each output channel takes the largest k that keeps its weights within 13 bits and its sums exact.
        """
        weight = weight.detach().double()
        bias = weight.new_zeros(weight.shape[0]) if bias is None else bias.detach().double()
        require_finite(weight, bias)
        _, exponent = torch.frexp(weight.abs().amax(1))
        shift = (WEIGHT_BITS - exponent).clamp(0, MAX_SHIFT)
        while True:
            scale = power_of_two(shift)
            quantised = torch.round(weight * scale[:, None])
            quantised_bias = torch.round(bias * scale * ONE)
            too_large = quantised.abs().sum(1) * ACTIVATION_MAX + quantised_bias.abs() >= EXACT_LIMIT
            if not bool(too_large.any()) or not bool((shift[too_large] > 0).all()):
                return cls(quantised, quantised_bias, shift, fraction_bits)
            shift = shift - too_large.to(shift.dtype)

    @classmethod
    def of_layer(cls, layer: nn.Module, fraction_bits: int = FRACTION_BITS) -> IntegerLinear:
        """Quantise a convolution or transposed convolution, its kernel flattened in (input, row, column) order."""
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        if isinstance(layer, nn.ConvTranspose2d):
            weight = weight.transpose(0, 1)
        return cls.quantise(weight.flatten(1), bias, fraction_bits)

    def floats(self) -> tuple[Tensor, Tensor]:
        """Return what the integers stand for: weight (outputs, inputs) and bias (outputs,), float64."""
        scale = power_of_two(-self.shift)
        return self.weight * scale[:, None], self.bias * scale / ONE

    @torch.no_grad()
    def restore(self, layer: nn.Module) -> None:
        """Set a convolution, or a transposed one, to what the integers stand for."""
        weight, bias = self.floats()
        target = layer.weight
        assert isinstance(target, Tensor) and isinstance(layer.bias, Tensor)
        if isinstance(layer, nn.ConvTranspose2d):
            target = target.transpose(0, 1)
        target.copy_(weight.view(target.shape))
        layer.bias.copy_(bias)

    def accumulate(self, a: Tensor) -> Tensor:
        """Return the sums of products, without bias and scale; sums over parts of the inputs may be added."""
        return a @ self._columns

    def finish_(self, total: Tensor) -> Tensor:
        """Add the bias, shift with rounding and clamp, in place, on the last axis of ``total``."""
        return clamp_fixed_(torch.addcmul(self._scaled_bias, total, self._scale, out=total).floor_())

    def __call__(self, a: Tensor) -> Tensor:
        return self.finish_(self.accumulate(a))

    def split(self, *sizes: int) -> list[Tensor]:
        """Split the transposed weight along its inputs, for inputs that become known at different times."""
        return [part.contiguous() for part in self._columns.split(sizes)]


def integer_conv(layer: IntegerLinear, a: Tensor, kernel: int) -> Tensor:
    """Convolve with stride 1 and an odd ``kernel``, zeros outside: (C, H, W) -> (out, H, W)."""
    _, height, width = a.shape
    half = kernel // 2
    padded = F.pad(a, (half,) * 4)
    # A strip of rows at a time, because all windows of a large image together would fill gigabytes.
    rows = max(1, STRIP_POSITIONS // width)
    strips = (padded[None, :, top : top + rows + 2 * half] for top in range(0, height, rows))
    return torch.cat([layer(F.unfold(strip, kernel)[0].T) for strip in strips]).T.reshape(-1, height, width)


class IntegerDeconv:
    """A transposed convolution, stride 2, padding kernel // 2, output padding 1: (C, H, W) -> (out, 2H, 2W).

    Written as the stride-1 convolution of the zero-stuffed input, one of four kernel phases for each output parity, so
    that an output is one sum of products.

    Args:
        layer: its weight is (out, C * kernel^2), in the order of ``nn.ConvTranspose2d`` after moving its output axis
            first.
        kernel: odd side of the kernel.
    """

    def __init__(self, layer: IntegerLinear, kernel: int) -> None:
        self.layer = layer
        half = kernel // 2
        self.reach = math.ceil(half / 2)
        weight = layer.weight.unflatten(1, (-1, kernel, kernel))
        offsets = range(-self.reach, self.reach + 1)
        # (row parity, column parity, offsets of the inputs, transposed weights) of each phase.
        self.phases: list[tuple[int, int, list[tuple[int, ...]], Tensor]] = []
        for row, column in itertools.product(range(2), repeat=2):
            # Output 2i + parity collects input i + d through kernel row parity + half - 2d.
            near = [[d for d in offsets if 0 <= parity + half - 2 * d < kernel] for parity in (row, column)]
            taps = list(itertools.product(*near))
            parts = [weight[:, :, row + half - 2 * drow, column + half - 2 * dcolumn] for drow, dcolumn in taps]
            self.phases.append((row, column, taps, torch.stack(parts, 1).flatten(1).T))

    def __call__(self, a: Tensor) -> Tensor:
        _, height, width = a.shape
        padded = F.pad(a, (self.reach,) * 4).unfold(1, height, 1).unfold(2, width, 1)
        result = a.new_empty(len(self.layer.bias), 2 * height, 2 * width)
        for row, column, taps, weight in self.phases:
            inputs = torch.stack([padded[:, self.reach + drow, self.reach + dcolumn] for drow, dcolumn in taps])
            total = self.layer.finish_(inputs.flatten(0, 1).flatten(1).T @ weight)
            result[:, row::2, column::2] = total.T.view(-1, height, width)
        return result
