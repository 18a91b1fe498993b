"""Launchers and the sweeper of trainings, here because Hydra finds plugins in ``hydra_plugins`` only.

Hydra imports this module at every start, so the work is in :mod:`jointiq.sweeps.sweep`, which is imported late.
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
    """Run each job as a process of its own, so that a job that fails does not stop the others.

    (A distributed job needs one: Lightning starts its further processes by repeating the command line.) Finished jobs
    are skipped, GPUs are assigned, status is noted, and each run's ``optimized_metric`` is returned.
    """

    config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config


class ProcessLauncher(_JobLauncher):
    """Run the jobs on this machine."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from jointiq.sweeps.sweep import launch_here

        assert self.config is not None
        return launch_here(self.config.hydra, job_overrides, initial_job_idx)


class RayLauncher(_JobLauncher):
    """Run the jobs on a Ray cluster.

    Args:
        address: of the cluster's head, or "auto"; None starts a cluster on this machine.
        cpus: cores of a job; None: those that it can use.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        self.address = address
        self.cpus = cpus

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from jointiq.sweeps.sweep import launch_on_ray

        assert self.config is not None
        return launch_on_ray(self.config.hydra, job_overrides, initial_job_idx, self.address, self.cpus)


class JobSweeper(BasicSweeper):
    """Run every combination of the values, as Hydra's own sweeper does; a job that fails does not stop the others.

    At the end a table of the jobs' status is printed, whatever launcher ran them. The exit code is 1 if one failed.
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
        """Do nothing: :meth:`sweep` has composed all jobs before."""


class _WatchedLauncher(Launcher):
    """Run the jobs of a :class:`JobSweeper` by another launcher, and return no results, whose errors would end it."""

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
