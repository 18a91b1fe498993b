"""One model for all rates: numbers of every channel that change with the quality.

A curve has a value at each of some levels, evenly spaced from quality 1 to 100, and is a straight line between them.
Gains are stored as logarithms, so that they are interpolated geometrically (Cui et al. 2021, "Asymmetric Gained Deep
Image Compression With Continuous Rate Adaptation").

    x --> g_a --[* a gain on the features]--> y * gain --> round --> y_hat * gain' --> g_s --[* a gain]--> x_mid
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jointiq.bitstream.container import HIGHEST, LOWEST, TENTHS

#: Ratio of the gains of y at the two ends when a training begins, as a logarithm: rounding steps go with the root of
#: the slope of the rate-distortion curve, which changes by about 180 from 0.1 to 1.5 bits per pixel.
_INITIAL_SPAN = math.log(180) / 2


def log_spaced(ends: Sequence[float], quality: float) -> float:
    """Return the number at a quality between those at the lowest and the highest, evenly spaced in its logarithm."""
    first, last = map(math.log, ends)
    return math.exp(first + (last - first) * (quality - LOWEST) / (HIGHEST - LOWEST))


def interpolate(values: Tensor, quality: Tensor) -> Tensor:
    """Return a curve (levels, C) at qualities (B,): (B, C)."""
    position = (quality - LOWEST) * ((len(values) - 1) / (HIGHEST - LOWEST))
    below = position.floor().clamp(0, len(values) - 2)
    share = (position - below)[:, None]
    index = below.long()
    return values[index] * (1 - share) + values[index + 1] * share


def interpolate_integers(values: Tensor, tenths: int) -> Tensor:
    """Return an integer curve, int64 (levels, C), at a quality in tenths: (C,), rounded half up, without a float."""
    span = (HIGHEST - LOWEST) * TENTHS
    below, rest = divmod((tenths - LOWEST * TENTHS) * (len(values) - 1), span)
    if rest == 0:
        return values[below]
    weighted = values[below] * (span - rest) + values[below + 1] * rest
    return torch.div(weighted * 2 + span, 2 * span, rounding_mode="floor")


class Gains(nn.Module):
    """Gains of C channels at every quality, (levels, C) logarithms; ``rising`` says how they begin.

    Args:
        rising: 1: larger from quality to quality, as the latent needs it; -1: smaller, which undoes that; 0: all one.
    """

    def __init__(self, levels: int, channels: int, rising: int = 0) -> None:
        super().__init__()
        begin = torch.linspace(-_INITIAL_SPAN / 2, _INITIAL_SPAN / 2, levels) * rising
        self.log_gain = nn.Parameter(begin[:, None].repeat(1, channels))

    def forward(self, quality: Tensor) -> Tensor:
        """Return the gains at qualities (B,): (B, C, 1, 1)."""
        return interpolate(self.log_gain, quality).exp()[..., None, None]


class TransformGains(nn.Module):
    """The gains of a transform, g_a (``rising=1``) or g_s (-1): of N channels of its features and of the M of y."""

    def __init__(self, levels: int, N: int, M: int, rising: int) -> None:
        super().__init__()
        self.features = Gains(levels, N)
        self.y = Gains(levels, M, rising)
