"""Sweeps of trainings, for Hydra, which takes launchers and sweepers from modules of ``hydra_plugins`` only.

Hydra imports this module at every start: what it does is in :mod:`jointiq.sweeps.sweep`, which is imported late.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _JobLauncher(Launcher):
    """Runs each job as a process of its own, which takes no other one with it when it fails.

    (Lightning starts the further processes of a distributed job by repeating its command line.) It skips what is
    finished, deals out the GPUs, notes how the jobs stand, and returns each run's ``optimized_metric``.
    """

    config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config


class ProcessLauncher(_JobLauncher):
    """On this machine."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from jointiq.sweeps.sweep import launch_here

        assert self.config is not None
        return launch_here(self.config.hydra, job_overrides, initial_job_idx)


class RayLauncher(_JobLauncher):
    """On a Ray cluster: one that is made here, or the one at ``address``.

    Args:
        address: of the cluster's head, or "auto".
        cpus: cores of a job.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        self.address = address
        self.cpus = cpus

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from jointiq.sweeps.sweep import launch_on_ray

        assert self.config is not None
        return launch_on_ray(self.config.hydra, job_overrides, initial_job_idx, self.address, self.cpus)


class JobSweeper(BasicSweeper):
    """Hydra's own sweeper, every combination of the values. A job that fails stops no other one.

    At the end a table tells how the jobs stand, whatever launcher ran them, and the exit code is 1 where one failed.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self.launcher is not None
        self.launcher = _WatchedLauncher(self.launcher, Path(config.hydra.sweep.dir))

    def sweep(self, arguments: list[str]) -> None:
        from jointiq.errors import one_line_errors
        from jointiq.sweeps.sweep import close, jobs_of, print_table

        assert self.config is not None and self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (jobs,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        with one_line_errors():
            jobs_of(jobs)
        record = Path(self.config.hydra.sweep.dir)
        try:
            super().sweep(arguments)
        finally:
            print_table(record)
        if code := close(record, Path(self.config.paths.results)):
            sys.exit(code)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: all jobs have been composed before anything is written."""


class _WatchedLauncher(Launcher):
    """Runs the jobs of a :class:`JobSweeper` by another launcher, and returns nothing at which it would break off."""

    def __init__(self, launcher: Launcher, record: Path) -> None:
        self.launcher = launcher
        self.record = record

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Do nothing: the other launcher is set up already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from jointiq.sweeps.sweep import launch_elsewhere

        if isinstance(self.launcher, _JobLauncher):
            self.launcher.launch(job_overrides, initial_job_idx)
        else:
            launch_elsewhere(self.launcher, self.record, job_overrides, initial_job_idx)
        return []
