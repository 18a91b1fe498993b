"""Find the quality at which a model of all rates comes to a file of a given size, or to a given PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable

from jointiq.bitstream.container import HIGHEST, LOWEST, TENTHS, require_quality

#: Values at a quality: they rise with it.
ValueAt = Callable[[float], float]

# Steps that may pass without the range being halved; a step cuts off at least this share of it.
_PATIENCE, _NEAREST = 3, 0.1


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

    Regula falsi towards ``target``: an end of the range that stays counts half as far away the next time (the Illinois
    rule). Where three steps have not halved the range, it is cut in half.
    """
    low, high = LOWEST * TENTHS, HIGHEST * TENTHS
    value_low, value_high = value_at(LOWEST), value_at(HIGHEST)
    if not holds(value_low):
        return LOWEST
    if holds(value_high):
        return HIGHEST
    from_low, from_high = _distance(value_low, target), _distance(value_high, target)
    halved_at, steps, low_moved = high - low, 0, None
    while high - low > 1:
        total = from_low + from_high
        share = 0.5 if steps == _PATIENCE or total == 0 else min(max(from_low / total, _NEAREST), 1 - _NEAREST)
        middle = min(max(round(low + share * (high - low)), low + 1), high - 1)
        value = value_at(middle / TENTHS)
        distance, moves_low = _distance(value, target), holds(value)
        if moves_low:
            low, from_low, from_high = middle, distance, from_high / 2 if low_moved is True else from_high
        else:
            high, from_high, from_low = middle, distance, from_low / 2 if low_moved is False else from_low
        low_moved, steps = moves_low, steps + 1
        if 2 * (high - low) <= halved_at:
            halved_at, steps = high - low, 0
    return low / TENTHS


def _distance(value: float, target: float) -> float:
    """Return how far a value is from the target: in logarithms, as sizes grow about exponentially with the quality."""
    return abs(math.log(value / target)) if value > 0 and target > 0 else abs(value - target)


def _next(quality: float) -> float:
    return quality if quality == HIGHEST else require_quality(quality + 1 / TENTHS)
