"""Learning rate schedules: the factor of the initial learning rate over a run.

A schedule is a function of the run's progress, 0 at the start and 1 at the end. Progress is the share of the steps done
or, if larger, of the time cap used, so that runs with a time cap reach the end of the schedule, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

#: Factor of the initial learning rate at a progress in [0, 1].
Schedule = Callable[[float], float]

SCHEDULES = ("step", "cosine", "constant")


def step_decay(
    max_steps: int,
    halvings: int = 6,
    decay_steps: int = 300_000,
    decay_share: float = 0.3,
    pretrain_share: float = 0.0,
    pretrain_factor: float = 1.0,
) -> Schedule:
    """Halve ``halvings`` times at equal distances over the last part of the run (paper, section 5).

    The last part is ``decay_steps`` long, but at most ``decay_share`` of the run. With the defaults these are the
    paper's halvings at T - 300K, T - 250K, ..., T - 50K for each T of section 5 (a million steps and more); shorter
    runs have them scaled down.

    The first ``pretrain_share`` of the run has ``pretrain_factor`` times the initial rate (Lee 2019, section 4.2).
    """
    window = min(float(decay_steps), decay_share * max_steps)

    def factor(progress: float) -> float:
        if progress < pretrain_share:
            return pretrain_factor
        into = progress * max_steps - (max_steps - window)
        if into < -1e-6 * window:
            return 1.0
        # The small term: a boundary that is hit exactly counts as passed, in spite of rounding.
        done = math.floor(into / window * halvings + 1e-6) + 1
        return 0.5 ** min(max(done, 1), halvings)

    return factor


def cosine(final_share: float = 0.01) -> Schedule:
    """Fall from 1 to ``final_share`` along half a cosine."""

    def factor(progress: float) -> float:
        return final_share + (1 - final_share) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    return factor


def constant() -> Schedule:
    """Stay at 1."""
    return lambda progress: 1.0


def build_schedule(
    name: str,
    max_steps: int,
    halvings: int,
    decay_steps: int,
    decay_share: float,
    final_share: float,
    pretrain_share: float = 0.0,
    pretrain_factor: float = 1.0,
) -> Schedule:
    """Return the schedule called ``name``, one of ``SCHEDULES``.

    Raises:
        KeyError: unknown name.
    """
    return {
        "step": lambda: step_decay(max_steps, halvings, decay_steps, decay_share, pretrain_share, pretrain_factor),
        "cosine": lambda: cosine(final_share),
        "constant": constant,
    }[name]()
