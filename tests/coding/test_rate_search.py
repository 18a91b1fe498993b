"""A quality is found by few files, and is the best there is in steps of a tenth."""

import math

import pytest

from jointiq.coding.rate_search import largest_quality, nearest_quality, smallest_quality

CURVES = {
    "line": lambda quality: 100 * quality,
    "exponential": lambda quality: 2000 * math.exp(quality / 35),
    "steps": lambda quality: 1000 * math.floor(quality / 7) + 500,
    "flat ends": lambda quality: 1000 / (1 + math.exp(-(quality - 50) / 3)),
    "constant": lambda quality: 70,
}


class Counted:
    """A curve that counts the qualities it is asked for."""

    def __init__(self, curve):
        self.curve, self.seen = curve, {}

    def __call__(self, quality):
        assert round(10 * quality) / 10 == quality
        return self.seen.setdefault(quality, self.curve(quality))


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("at", [1, 1.05, 3.4, 50, 77.77, 99.95, 100])
def test_the_best_of_all_tenths(name, at):
    curve = CURVES[name]
    target = curve(at)
    every = [tenths / 10 for tenths in range(10, 1001)]
    counted = Counted(curve)
    assert largest_quality(counted, target) == max([q for q in every if curve(q) <= target], default=1)
    assert len(counted.seen) <= (12 if name in ("line", "exponential") else 22)
    assert smallest_quality(Counted(curve), target) == min([q for q in every if curve(q) >= target], default=100)
    nearest = curve(nearest_quality(Counted(curve), target))
    assert abs(nearest - target) == min(abs(curve(q) - target) for q in every)


def test_what_cannot_be_reached_is_the_end():
    curve = CURVES["line"]
    assert largest_quality(curve, 5) == nearest_quality(curve, 5) == smallest_quality(curve, 5) == 1
    assert largest_quality(curve, 1e9) == nearest_quality(curve, 1e9) == smallest_quality(curve, 1e9) == 100
