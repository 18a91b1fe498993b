"""Trainings of a study: a job for each lambda and seed of its runs, each after the one that it starts from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_dir
from hydra.errors import HydraException

from jointiq.coding import CHECKPOINT
from jointiq.coding.shipped import of_name
from jointiq.command_line import override
from jointiq.configs import CONFIGS
from jointiq.data.image_sets import set_text
from jointiq.errors import EXIT_TERMINATED, UserError
from jointiq.runs.folder import DONE, done_step, stage_folders, training_hours
from jointiq.studies.plan import Run, Scale
from jointiq.sweeps.jobs import Job, run_jobs
from jointiq.sweeps.resources import places
from jointiq.typed import in_one_line

Key = tuple[str, float, int]


@dataclass(frozen=True, eq=False)
class Training:
    """One training of a study: a run at one lambda with one seed; or a shipped model.

    Attributes:
        job: the run of ``src.train``; None: a shipped model.
        source: the training that it starts from; None: none.
    """

    run: Run
    lmbda: float = 0.0
    seed: int = 0
    job: Job | None = None
    source: Training | None = None

    def __str__(self) -> str:
        """Return its name in a report."""
        return self.run.name if self.job is None else f"{self.run.name}, lambda {self.lmbda:g}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The run's folder; of a shipped model, its file.

        Raises:
            UserError: the config is wrong, which the run itself will report; or there is no such shipped model.
        """
        if self.job is None:
            return of_name(self.run.shipped).path
        if self.job.folder is None:
            raise UserError(f"{self.run.name}: wrong configuration; python -m src.train {' '.join(self.job.overrides)}")
        return self.job.folder

    @property
    def measured_as(self) -> tuple[Path, int]:
        """What tells its rows from those of others: the folder, and the steps of refinement."""
        return self.folder, self.run.refine

    @property
    def checkpoint(self) -> Path:
        """Its checkpoint, once it is finished."""
        return self.folder if self.job is None else self.folder / CHECKPOINT

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimizer steps: those of the training that it started from, then its own, by stage."""
        if self.job is None:
            return tuple(stage["steps"] for stage in of_name(self.run.shipped).facts["training"]["stages"])
        own = [done_step(folder) for folder in self._own_folders()]
        return (*(self.source.steps if self.source else ()), *own)

    @property
    def hours(self) -> float:
        """Hours that its own optimizer steps took, without those of the training that it started from."""
        if self.job is None:
            return 0.0
        return sum(training_hours(folder) or 0.0 for folder in self._own_folders())

    def _own_folders(self) -> list[Path]:
        """The folders of its finished stages, or its folder."""
        return [path for path in stage_folders(self.folder) if (path / DONE).is_file()] or [self.folder]

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Training images of a shipped model, as text; of all others the study tells."""
        if self.job is not None:
            return ()
        data = of_name(self.run.shipped).facts["training"]["data"]
        return tuple(set_text(**one) for one in data)


def trainings(scale: Scale, common: Sequence[str]) -> list[Training]:
    """Return all trainings of a study at a scale, each after the one that it starts from, and its shipped models.

    Args:
        common: overrides of every job (data, folders, those of the user), which come last.

    Raises:
        UserError: an override that does not go with the configs.
    """
    made: dict[Key, Training] = {}
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for run in scale.runs:
            for lmbda in run.lmbda:
                for seed in run.seeds:
                    made[run.name, lmbda, seed] = (
                        Training(run) if run.shipped else _training(run, lmbda, seed, common, made)
                    )
    return list(made.values())


def _training(run: Run, lmbda: float, seed: int, common: Sequence[str], made: Mapping[Key, Training]) -> Training:
    overrides = [*run.overrides, f"lmbda={lmbda:g}", f"seed={seed}"]
    source = None
    if run.init_from is not None:
        first = next(key for key in made if key[:2] == (run.init_from, lmbda))
        source = made[first]
        overrides.append(override("init_from", source.checkpoint))
    try:
        job = Job.of([*overrides, *common])
        job.check()
    except HydraException as error:
        raise UserError(f"run {run.name}: {in_one_line('train', error, [*overrides, *common])}") from error
    return Training(run, lmbda, seed, job, source)


def train(jobs: Sequence[Training], at_once: int, record: Path) -> list[Training]:
    """Run unfinished trainings, ``at_once`` at a time, on the GPUs in turn; skip those whose source failed.

    Args:
        record: folder for the jobs' logs and notes.

    Returns:
        The finished ones of ``jobs``.

    Raises:
        KeyboardInterrupt: Ctrl-C, after started jobs have saved.
        SystemExit: SIGTERM, likewise.
    """
    finished: set[Training] = set()
    for number, wave in enumerate(_waves(jobs)):
        ready = [one for one in wave if one.source is None or one.source in finished]
        waiting = [one for one in ready if one.job is not None and not one.job.is_finished()]
        to_do = [one.job for one in waiting if one.job is not None]
        results = []
        if to_do:
            _, gpus = places(to_do[0].cfg)
            results = run_jobs(to_do, at_once, gpus, record=record / f"wave{number}")
        if any(result.code in (None, EXIT_TERMINATED) for result in results):
            sys.exit(EXIT_TERMINATED)
        failed = {one for one, result in zip(waiting, results, strict=True) if result.code != 0}
        finished |= set(ready) - failed
    return [one for one in jobs if one in finished]


def _waves(jobs: Sequence[Training]) -> Iterator[list[Training]]:
    """Yield the trainings that start from no other, then those that start from them, and so on."""

    def depth(one: Training) -> int:
        return 0 if one.source is None else 1 + depth(one.source)

    for level in range(1 + max((depth(one) for one in jobs), default=-1)):
        yield [one for one in jobs if depth(one) == level]
