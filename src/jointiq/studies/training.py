"""The trainings of a study: one job for each lambda and seed of its runs, each after the one it starts from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_dir
from hydra.errors import HydraException

from jointiq.command_line import override
from jointiq.configs import CONFIGS
from jointiq.errors import EXIT_TERMINATED, UserError
from jointiq.runs.folder import CHECKPOINT
from jointiq.studies.context import Trained
from jointiq.studies.plan import Run, Scale
from jointiq.sweeps.jobs import Job, run_jobs

Key = tuple[str, float, int]


@dataclass(frozen=True)
class Training:
    """One job of a study, and the one it starts from."""

    run: Run
    lmbda: float
    seed: int
    job: Job
    source: Training | None

    @property
    def folder(self) -> Path:
        """The run's folder.

        Raises:
            UserError: the configuration is wrong; the run itself says how.
        """
        if self.job.folder is None:
            raise UserError(f"{self.run.name}: wrong configuration; python -m src.train {' '.join(self.job.overrides)}")
        return self.job.folder

    def trained(self, source: Trained | None) -> Trained:
        """What the finished training left; ``source`` is what the one it starts from left."""
        return Trained(self.run, self.lmbda, self.seed, self.folder, source)


def trainings(scale: Scale, common: Sequence[str]) -> list[Training]:
    """All trainings of a study at a scale, in an order in which each comes after the one it starts from.

    Args:
        common: overrides of every job (data, places, what the user typed); they come last.

    Raises:
        UserError: an override that the configs do not know.
    """
    made: dict[Key, Training] = {}
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for run in scale.runs:
            for lmbda in run.lmbda:
                for seed in run.seeds:
                    made[run.name, lmbda, seed] = _training(run, lmbda, seed, common, made)
    return list(made.values())


def _training(run: Run, lmbda: float, seed: int, common: Sequence[str], made: Mapping[Key, Training]) -> Training:
    overrides = [*run.overrides, f"lmbda={lmbda:g}", f"seed={seed}"]
    source = None
    if run.init_from is not None:
        first = next(key for key in made if key[:2] == (run.init_from, lmbda))
        source = made[first]
        overrides.append(override("init_from", source.folder / CHECKPOINT))
    try:
        job = Job.of([*overrides, *common])
    except HydraException as error:
        raise UserError(f"run {run.name}: {' '.join(str(error).split())}") from error
    return Training(run, lmbda, seed, job, source)


def train(jobs: Sequence[Training], at_once: int, record: Path) -> list[Trained | None]:
    """Train what is not finished, ``at_once`` at a time; a training whose source failed is not started.

    Args:
        record: folder for what the jobs print and how they ended.

    Returns:
        What each training left; None for one that is not finished.

    Raises:
        KeyboardInterrupt: Ctrl-C; started jobs have saved.
        SystemExit: the same by SIGTERM.
    """
    made: dict[int, Trained] = {}
    for number, wave in enumerate(_waves(jobs)):
        ready = [one for one in wave if one.source is None or id(one.source) in made]
        waiting = [one for one in ready if not one.job.is_finished()]
        results = run_jobs([one.job for one in waiting], at_once, record=record / f"wave{number}") if waiting else []
        if any(result.code in (None, EXIT_TERMINATED) for result in results):
            sys.exit(EXIT_TERMINATED)
        failed = {id(one) for one, result in zip(waiting, results, strict=True) if result.code != 0}
        made |= {id(one): one.trained(made.get(id(one.source))) for one in ready if id(one) not in failed}
    return [made.get(id(one)) for one in jobs]


def _waves(jobs: Sequence[Training]) -> Iterator[list[Training]]:
    """Trainings that start from nothing, those that start from them, and so on."""

    def depth(one: Training) -> int:
        return 0 if one.source is None else 1 + depth(one.source)

    for level in range(1 + max((depth(one) for one in jobs), default=-1)):
        yield [one for one in jobs if depth(one) == level]
