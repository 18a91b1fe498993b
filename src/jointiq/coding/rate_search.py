"""Find the quality at which a model of all rates comes to a file of a given size, or to a given PSNR."""

from __future__ import annotations

from collections.abc import Callable

from jointiq.bitstream.container import HIGHEST, LOWEST, TENTHS, require_quality

#: Values at a quality: they rise with it.
ValueAt = Callable[[float], float]


def largest_quality(value_at: ValueAt, limit: float) -> float:
    """Return the largest quality whose value does not exceed ``limit``; the lowest where all do."""
    return _last(value_at, limit, lambda value: value <= limit)


def smallest_quality(value_at: ValueAt, least: float) -> float:
    """Return the smallest quality whose value is at least ``least``; the highest where none is."""
    below = _last(value_at, least, lambda value: value < least)
    return below if value_at(below) >= least else _next(below)


def nearest_quality(value_at: ValueAt, target: float) -> float:
    """Return the quality whose value is nearest to ``target``."""
    below = largest_quality(value_at, target)
    return min((below, _next(below)), key=lambda quality: abs(value_at(quality) - target))


def _last(value_at: ValueAt, target: float, holds: Callable[[float], bool]) -> float:
    """Return the last quality up to which ``holds`` is true of the values; the lowest where it never is.

    Regula falsi towards ``target``, with a bisection wherever it has not halved the range.
    """
    low, high = LOWEST * TENTHS, HIGHEST * TENTHS
    value_low, value_high = value_at(LOWEST), value_at(HIGHEST)
    if not holds(value_low):
        return LOWEST
    if holds(value_high):
        return HIGHEST
    bisect = False
    while high - low > 1:
        share = 0.5 if bisect or value_high <= value_low else (target - value_low) / (value_high - value_low)
        middle = min(max(round(low + share * (high - low)), low + 1), high - 1)
        value, before = value_at(middle / TENTHS), high - low
        if holds(value):
            low, value_low = middle, value
        else:
            high, value_high = middle, value
        bisect = 2 * (high - low) > before
    return low / TENTHS


def _next(quality: float) -> float:
    return quality if quality == HIGHEST else require_quality(quality + 1 / TENTHS)
