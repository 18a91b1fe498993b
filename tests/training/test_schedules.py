"""Values of the learning rate's course, at the paper's steps and scaled down."""

from __future__ import annotations

import pytest

from jointiq.training.schedules import SCHEDULES, build_schedule, cosine, step_decay


@pytest.mark.parametrize("steps", [1_000_000, 1_200_000, 1_500_000, 2_000_000, 3_000_000])
def test_halvings_of_the_paper(steps: int) -> None:
    factor = step_decay(steps)
    assert factor(0) == factor((steps - 300_001) / steps) == 1
    for number in range(6):
        at = steps - 300_000 + 50_000 * number
        assert factor(at / steps) == 0.5 ** (number + 1), number
        assert factor((at + 49_999) / steps) == 0.5 ** (number + 1), number
    assert factor(1.0) == 0.5**6


@pytest.mark.parametrize("steps", [10, 48, 2000])
def test_short_runs_are_halved_in_proportion(steps: int) -> None:
    factor = step_decay(steps)
    assert factor(0.6999) == 1
    assert [factor(0.7 + number / 20) for number in range(6)] == [0.5 ** (number + 1) for number in range(6)]


def test_halvings_survive_one_step_runs() -> None:
    assert step_decay(1)(0.0) == 1
    assert step_decay(1)(1.0) == 0.5**6


def test_cosine() -> None:
    factor = cosine(0.1)
    assert (factor(0.0), factor(1.0)) == pytest.approx((1.0, 0.1))
    assert factor(0.5) == pytest.approx(0.55)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_builds_and_starts_at_one(name: str) -> None:
    assert build_schedule(name, 100, 6, 300_000, 0.25, 0.01)(0.0) == pytest.approx(1.0)
