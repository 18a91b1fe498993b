"""Curves over the quality: the float and the integer form, and the gains that a training begins with."""

import math
from fractions import Fraction

import pytest
import torch

from jointiq.layers.gains import Gains, TransformGains, interpolate, interpolate_integers, log_spaced


@pytest.mark.parametrize("levels", [2, 5, 16])
def test_at_its_levels_a_curve_has_its_values(levels):
    values = torch.randn(levels, 3)
    quality = 1 + 99 * torch.arange(levels) / (levels - 1)
    assert torch.allclose(interpolate(values, quality), values, atol=1e-4)


def test_between_them_it_is_a_straight_line():
    values = torch.tensor([[0.0], [1.0], [5.0]])
    halves = torch.tensor([1 + 99 / 4, 1 + 99 * 3 / 4])
    assert torch.allclose(interpolate(values, halves), torch.tensor([[0.5], [3.0]]), atol=1e-5)


@pytest.mark.parametrize("levels", [2, 4, 16])
def test_integers_are_the_exact_line_rounded_half_up(levels):
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-(2**15), 2**15, (levels, 7), generator=generator)
    for tenths in range(10, 1001):
        position = Fraction((tenths - 10) * (levels - 1), 990)
        below = min(int(position), levels - 2)
        exact = [
            math.floor(a + (position - below) * (b - a) + Fraction(1, 2))
            for a, b in zip(values[below].tolist(), values[below + 1].tolist(), strict=True)
        ]
        assert interpolate_integers(values, tenths).tolist() == exact


def test_gains_begin_as_one_codec_with_other_steps():
    """What g_a multiplies y by, g_s divides by; the step of the middle is 1, that of the ends differs by a factor."""
    to, back = TransformGains(16, 4, 6, rising=1), TransformGains(16, 4, 6, rising=-1)
    quality = torch.tensor([1.0, 20.3, 50.5, 100.0])
    assert torch.allclose(to.y(quality) * back.y(quality), torch.ones(4, 6, 1, 1), atol=1e-5)
    assert torch.allclose(to.features(quality), torch.ones(4, 4, 1, 1))
    first, *_, middle, last = to.y(quality)[:, 0, 0, 0].tolist()
    assert middle == pytest.approx(1) and last / first == pytest.approx(math.sqrt(180), rel=1e-4)


def test_every_level_is_trained():
    gains = Gains(3, 2)
    gains(torch.tensor([1.0, 60.0])).sum().backward()
    assert (gains.log_gain.grad != 0).all()


def test_lambda_is_log_spaced():
    ends = (0.6, 0.006)
    assert log_spaced(ends, 1) == pytest.approx(0.6) and log_spaced(ends, 100) == pytest.approx(0.006)
    assert log_spaced(ends, 50.5) == pytest.approx(0.06)
