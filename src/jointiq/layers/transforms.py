"""The four transforms g_a, g_s, h_a, h_s (Lee 2019 section 4.1: the structures of Balle 2018).

    x  --g_a-->  y (1/16)  --h_a-->  z (1/64)
    x' <--g_s--  y_hat       c' <--h_s--  z_hat

Synthesis transforms take the size they must return, because an odd side was padded by one line on the way down
(:mod:`jointiq.layers.padding`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from compressai.models.utils import conv, deconv
from torch import Tensor, nn

from jointiq.bitstream.tables import EXP_BITS, EXP_ENTRIES, EXP_STEP_BITS, exp_table
from jointiq.layers.gdn import GDN
from jointiq.layers.integer_layers import FRACTION_BITS, IntegerDeconv, IntegerLinear, integer_conv, to_fixed
from jointiq.layers.padding import Size, crop, pad_to_even, pyramid

#: The layer whose features have gains in a model of all rates (:mod:`jointiq.layers.gains`): in g_a and in g_s that at
#: a quarter of the image's sides.
GAINED = 1
# exp(7) = 1096.6 still fits the fixed-point activations of the integer network.
EXP_INPUT_MAX = 7
EXP_OF_INPUT_MAX = 1096.625


class AnalysisTransform(nn.Module):
    """g_a: image (B, 3, H, W) in [-1, 1] -> y (B, M, ceil(H / 16), ceil(W / 16)).

    Four 5x5 convolutions of stride 2 with N, N, N and M filters, GDN after the first three. An odd image side is
    extended by its own edge, an odd feature side by zeros. A ``gain`` (B, N, 1, 1) multiplies the features at 1/4.
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv(3, N), conv(N, N), conv(N, N), conv(N, M)])
        self.gdns = nn.ModuleList([*(GDN(N, inplace=True) for _ in range(3)), nn.Identity()])

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        for index, (convolution, gdn) in enumerate(zip(self.convs, self.gdns, strict=True)):
            x = gdn(convolution(pad_to_even(x, "replicate" if index == 0 else "constant")))
            if index == GAINED and gain is not None:
                x = x * gain.to(x.dtype)
        return x


class SynthesisTransform(nn.Module):
    """g_s: y_hat (B, M, h, w) -> image (B, 3, *size), about [-1, 1], not clamped.

    Mirrors g_a: four transposed 5x5 convolutions with inverse GDN before the last three, a ``gain`` at 1/4.
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        self.deconvs = nn.ModuleList([deconv(M, N), deconv(N, N), deconv(N, N), deconv(N, 3)])
        self.igdns = nn.ModuleList([*(GDN(N, inverse=True, inplace=True) for _ in range(3)), nn.Identity()])

    def forward(self, y_hat: Tensor, size: Size, gain: Tensor | None = None) -> Tensor:
        x, sizes = y_hat, pyramid(size, len(self.deconvs))
        for index, (deconvolution, igdn, target) in enumerate(
            zip(self.deconvs, self.igdns, sizes[-2::-1], strict=True)
        ):
            x = igdn(crop(deconvolution(x), target))
            if index == GAINED and gain is not None:
                x = x * gain.to(x.dtype)
        return x


def keep_the_scale(layers: Iterable[nn.Module]) -> None:
    """Draw the weights of convolutions so that their outputs have about the scale of their inputs (He et al. 2015).

    PyTorch's own draw loses half of it in each layer: z then begins below the rounding noise, and in short trainings
    stays there for good, at no bits and no use (our choice; the papers do not say how they began).
    """
    for layer in layers:
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        # A transposed convolution spreads its taps over stride x stride outputs.
        apart = math.prod(layer.stride) if isinstance(layer, nn.ConvTranspose2d) else 1
        inputs = layer.in_channels * math.prod(layer.kernel_size) / apart
        nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))


class HyperAnalysis(nn.Module):
    """h_a: y_hat (B, M, h, w) -> z (B, N, ceil(h / 4), ceil(w / 4)); 3x3 stride 1, then two 5x5 stride 2, ReLU
    between.
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv(M, N, stride=1, kernel_size=3), conv(N, N), conv(N, N)])
        self.relu = nn.ReLU()
        keep_the_scale(self.convs)

    def forward(self, y_hat: Tensor) -> Tensor:
        z = self.relu(self.convs[0](y_hat))
        z = self.relu(self.convs[1](pad_to_even(z)))
        return self.convs[2](pad_to_even(z))


class HyperSynthesis(nn.Module):
    """h_s: z_hat (B, N, ...) -> c' (B, M, *size) with ``size`` = (h, w) of y.

    Two transposed 5x5 stride 2, then 3x3, ReLU between; with ``exp`` the last operation is the exponential of Lee 2019.
    """

    def __init__(self, N: int, M: int, exp: bool = False) -> None:
        super().__init__()
        self.deconvs = nn.ModuleList([deconv(N, N), deconv(N, N)])
        self.conv = conv(N, M, stride=1, kernel_size=3)
        self.relu = nn.ReLU()
        self.exp = exp
        # The last layer begins small: its output is an exponent (Lee 2019), or the parameters themselves (the hybrid).
        keep_the_scale(self.deconvs)

    def forward(self, z_hat: Tensor, size: Size) -> Tensor:
        c = z_hat
        for deconvolution, target in zip(self.deconvs, pyramid(size, 2)[-2::-1], strict=True):
            c = self.relu(crop(deconvolution(c), target))
        c = self.conv(c)
        return bounded_exp(c) if self.exp else c


def bounded_exp(c: Tensor) -> Tensor:
    """Return the exponential at the end of Lee 2019's h_s, of inputs up to 7."""
    return c.clamp(max=EXP_INPUT_MAX).exp()


class IntegerHyperSynthesis:
    """Integer network of :class:`HyperSynthesis`: z_hat (N, h, w) integers -> c' (M, *size), fixed point in float64."""

    def __init__(self, layers: Mapping[str, IntegerLinear], exp: bool) -> None:
        self.deconvs = [IntegerDeconv(layers[name], 5) for name in ("deconv0", "deconv1")]
        self.conv = layers["conv"]
        self.exp = exp

    @classmethod
    def quantise(cls, h_s: HyperSynthesis) -> IntegerHyperSynthesis:
        """Quantise the weights of a float h_s."""
        layers = {f"deconv{i}": IntegerLinear.of_layer(layer) for i, layer in enumerate(h_s.deconvs)}
        return cls({**layers, "conv": IntegerLinear.of_layer(h_s.conv)}, h_s.exp)

    def layers(self) -> dict[str, IntegerLinear]:
        """Return the layers by name, for storage."""
        return {**{f"deconv{i}": deconv.layer for i, deconv in enumerate(self.deconvs)}, "conv": self.conv}

    def restore(self, h_s: HyperSynthesis) -> None:
        """Set the weights of a float h_s to what the integers stand for."""
        for integers, layer in zip(self.layers().values(), (*h_s.deconvs, h_s.conv), strict=True):
            integers.restore(layer)

    def __call__(self, z_hat: Tensor, size: Size) -> Tensor:
        c = to_fixed(z_hat)
        for deconvolution, target in zip(self.deconvs, pyramid(size, 2)[-2::-1], strict=True):
            c = crop(deconvolution(c), target).clamp_(min=0)
        c = integer_conv(self.conv, c, 3)
        return integer_exp(c) if self.exp else c


def integer_exp(a: Tensor) -> Tensor:
    """Return exp(a) of fixed-point a up to 7 by the table, as exp(7) * exp(-(7 - a)), in steps of 1/256."""
    steps = (
        EXP_INPUT_MAX * (1 << EXP_STEP_BITS) - a.mul(2.0 ** (EXP_STEP_BITS - FRACTION_BITS)).add_(0.5).floor_()
    ).long()
    power = exp_table(a.device)[steps.clamp_(0, EXP_ENTRIES - 1)]
    return (power.double() * (EXP_OF_INPUT_MAX * 2.0 ** (FRACTION_BITS - EXP_BITS))).add_(0.5).floor_()
