"""A device's arithmetic against the CPU's, before the first file is coded on it.

The integer networks are exact where float64 adds and multiplies integers below 2^53 exactly, and int64 divides and
shifts as it should. A device or a driver that does not, or a matrix product that goes through fewer digits, would write
files that no other machine can read.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from jointiq.bitstream.binarisation import level_of
from jointiq.entropy_models.gaussian_mixture import IntegerMixture
from jointiq.errors import UserError
from jointiq.layers.global_context import VALUE_MAX, fixed_context
from jointiq.layers.integer_layers import ACTIVATION_MAX, ONE, IntegerDeconv, IntegerLinear, integer_conv, leaky_relu_
from jointiq.layers.transforms import integer_exp

_SIDE, _CHANNELS = 9, 6


@cache
def require_exact(device: torch.device) -> None:
    """Compare samples of all that the integer networks do; once for each device.

    Raises:
        UserError: ``device`` gives something else than the CPU, or cannot do it.
    """
    if device.type == "cpu":
        return
    try:
        pairs = zip(_sample(torch.device("cpu")), _sample(device), strict=True)
        exact = all(torch.equal(expected, found.cpu()) for expected, found in pairs)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device={device} cannot code: {' '.join(str(error).split())}; allowed: cpu") from error
    if not exact:
        raise UserError(f"device={device} does not calculate exactly: its files could not be read; allowed: cpu")


def _sample(device: torch.device) -> list[Tensor]:
    """Results of large and small integers, the same on every device."""
    generator = torch.Generator().manual_seed(0)

    def integers(largest: int, *shape: int, least: int | None = None) -> Tensor:
        low = -largest if least is None else least
        return torch.randint(low, largest + 1, shape, generator=generator).to(device)

    activations = integers(ACTIVATION_MAX, _CHANNELS, _SIDE, _SIDE).double()
    layers = [
        IntegerLinear(
            integers(1 << 13, _CHANNELS, _CHANNELS * kernel**2),
            integers(1 << 40, _CHANNELS),
            integers(30, _CHANNELS, least=0),
        )
        for kernel in (3, 5)
    ]
    parameters = integers(20 * ONE, 50, 3 * 3 * _CHANNELS).double()
    mixture = IntegerMixture.of_parameters(parameters, G=3)
    below = [mixture.below(slice(None), offset) for offset in (-1, 0, 1)]
    weights = integers(1 << 16, 40, _CHANNELS, least=1)
    values = integers(VALUE_MAX, 40, _CHANNELS)
    sums = [part.sum(0) for part in (weights, weights.square(), weights * values, weights * values.square())]
    return [
        leaky_relu_(integer_conv(layers[0], activations, 3)),
        IntegerDeconv(layers[1], 5)(activations),
        integer_exp(activations.fmod(8 * ONE)),
        mixture.centre,
        *below,
        level_of(below[1], mixture.total - below[1]),
        fixed_context(*sums),
    ]
