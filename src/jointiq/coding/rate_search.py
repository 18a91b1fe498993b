"""Find the quality at which a model of all rates comes to a file of a given size, or to a given PSNR."""

from __future__ import annotations

from collections.abc import Callable

from jointiq.bitstream.container import HIGHEST, LOWEST, TENTHS, require_quality

#: Values at a quality: they rise with it.
ValueAt = Callable[[float], float]


def largest_quality(value_at: ValueAt, limit: float) -> float:
    """Return the largest quality whose value does not exceed ``limit``; the lowest where all do.

    Regula falsi, with a bisection wherever it has not halved the range; about eight values are asked for.
    """
    low, high = LOWEST * TENTHS, HIGHEST * TENTHS
    value_low, value_high = value_at(low / TENTHS), value_at(high / TENTHS)
    if value_low > limit:
        return LOWEST
    if value_high <= limit:
        return HIGHEST
    bisect = False
    while high - low > 1:
        share = 0.5 if bisect or value_high <= value_low else (limit - value_low) / (value_high - value_low)
        middle = min(max(round(low + share * (high - low)), low + 1), high - 1)
        value, before = value_at(middle / TENTHS), high - low
        if value <= limit:
            low, value_low = middle, value
        else:
            high, value_high = middle, value
        bisect = 2 * (high - low) > before
    return low / TENTHS


def smallest_quality(value_at: ValueAt, least: float) -> float:
    """Return the smallest quality whose value is at least ``least``; the highest where none is."""
    # The value of the quality below is short of it.
    below = largest_quality(value_at, least)
    return below if value_at(below) >= least else _next(below)


def nearest_quality(value_at: ValueAt, target: float) -> float:
    """Return the quality whose value is nearest to ``target``."""
    below = largest_quality(value_at, target)
    return min((below, _next(below)), key=lambda quality: abs(value_at(quality) - target))


def _next(quality: float) -> float:
    return quality if quality == HIGHEST else require_quality(quality + 1 / TENTHS)
