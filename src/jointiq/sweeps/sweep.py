"""A sweep (``-m``): every job is a process of its own.

Lightning starts the extra processes of a distributed job by repeating the command line, sweep and all. One process a
job keeps that from happening, and keeps a job that fails from taking the others with it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from jointiq.errors import EXIT_USER_ERROR, ConfigError, UserError
from jointiq.runs.status import read_sweep, status_table
from jointiq.sweeps.curves import close_sweep
from jointiq.sweeps.jobs import Job, note_job, run_jobs
from jointiq.sweeps.processes import EXIT_TERMINATED, run_process

_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
# The sweeper that comes with Hydra: every combination of the values, the last key changing fastest.
_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

_POLL_SECONDS = 5.0


def is_sweep(hydra: HydraConf) -> bool:
    """Whether this is a job of a sweep, and not what a single command or a sweep's job process runs."""
    return hydra.mode == RunMode.MULTIRUN


def is_queued_here(hydra: HydraConf) -> bool:
    """True for a sweep with Hydra's own launcher, which only lists the jobs; :mod:`jointiq.sweeps.jobs` runs them.

    Other launchers (submitit, Ray) run each job in a process of their own.
    """
    return is_sweep(hydra) and hydra.launcher.get("_target_") == _LAUNCHER


class Queue:
    """The jobs that Hydra's own launcher lists; they run when the list is complete."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._settings: HydraConf | None = None

    def add(self, hydra: HydraConf, cfg: DictConfig) -> None:
        """Put a job of a sweep on the list; ``cfg`` is its configuration.

        Raises:
            UserError: ``rerun=`` names no run.
        """
        self._jobs.append(Job.of(tuple(hydra.overrides.task), cfg))
        self._settings = hydra

    def run(self) -> int:
        """Run the jobs, and print how they stand at the end.

        Returns:
            Exit code: 0 where all are done (or there are none), 1 where one failed, 143 after SIGTERM.

        Raises:
            ConfigError: wrong numbers of jobs or devices.
            KeyboardInterrupt: Ctrl-C; started jobs have saved.
        """
        if self._settings is None:
            return _summarise(NoteSweep.ended.pop()) if NoteSweep.ended else 0
        record = Path(self._settings.sweep.dir)
        at_once, gpus = places(self._jobs[0].cfg)
        try:
            results = run_jobs(
                self._jobs, at_once, gpus, config_dirs(self._settings), group(self._settings), record=record
            )
        finally:
            status_table(read_sweep(record)).print()
        close_sweep(record)
        if any(result.failed for result in results):
            return 1
        return 0 if all(result.code == 0 for result in results) else EXIT_TERMINATED


class NoteSweep(Callback):
    """Hydra's hook in the process in which a sweep was typed, around what another launcher does with it."""

    #: Folders of sweeps that another launcher has been given, and of those that it has run.
    begun: list[Path] = []  # noqa: RUF012  shared on purpose: Hydra makes the object
    ended: list[Path] = []  # noqa: RUF012

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note all jobs as waiting (in a cluster's queue it may be long until they start), and say where they stand."""
        if config.hydra.launcher["_target_"] == _LAUNCHER or config.hydra.sweeper["_target_"] != _SWEEPER:
            return
        try:
            jobs = [Job.of(overrides) for overrides in _listed(config.hydra.overrides.task)]
        except (HydraException, UserError):
            return  # the launcher comes upon the same, and says so
        record = Path(config.hydra.sweep.dir)
        for earlier in (record / "jobs").glob("*.*"):
            earlier.unlink()
        for number, job in enumerate(jobs):
            note_job(record, number, job.overrides, job.folder, None)
        print(f"{len(jobs)} jobs; how they stand: python -m src.status {record}", flush=True)
        self.begun.append(record)
        # From here on an exception is a launcher's, and comes to lost_job instead of being printed by Hydra.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the sweep's folder."""
        self.begun.clear()
        if config.hydra.launcher["_target_"] != _LAUNCHER:
            self.ended.append(Path(config.hydra.sweep.dir))


def lost_job(error: Exception) -> None:
    """Say that a job has ended without a result (its node failed, it was cancelled), and wait for those that train.

    Args:
        error: what the launcher raised.

    Raises:
        Exception: ``error``, if there is no such sweep.
    """
    if not NoteSweep.begun:
        raise error
    record = NoteSweep.begun.pop()
    message = " ".join(str(error).splitlines()[:2])
    print(f"error: {message}; other jobs go on, the same command tries this one again", file=sys.stderr, flush=True)
    while any(run.state == "running" for run in read_sweep(record)):
        time.sleep(_POLL_SECONDS)
    NoteSweep.ended.append(record)


def _listed(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """What is typed for each job of a sweep, in the order of Hydra's own sweeper."""
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    values: dict[str, list[str]] = {}
    for override in parser.parse_overrides(list(overrides)):
        several = override.is_sweep_override()
        texts = override.sweep_string_iterator() if several else [override.get_value_element_as_str()]
        key = override.get_key_element()
        values[key] = [f"{key}={text}" for text in texts]
    return list(product(*values.values()))


def run_elsewhere(hydra: HydraConf, cfg: DictConfig, run_here: Callable[[], None]) -> int:
    """Run one job of a sweep in the process that another launcher has made for it.

    A task of a SLURM job trains in its own process: SLURM has started one for every device. Everywhere else Lightning
    starts the processes of a distributed run, by repeating a command line, so that the job gets one of its own.

    Args:
        cfg: the job's configuration.
        run_here: trains it in this process.

    Returns:
        The exit code of the training.
    """
    job = Job.of(tuple(hydra.overrides.task), cfg)
    record, number = Path(hydra.sweep.dir), hydra.job.num
    os.environ.update({**group(hydra), **os.environ})
    from lightning.fabric.plugins.environments import SLURMEnvironment  # late: help does not wait for it

    in_slurm = SLURMEnvironment.detect()
    is_first = not in_slurm or os.environ.get("SLURM_PROCID", "0") == "0"
    if is_first:
        note_job(record, number, job.overrides, job.folder, None)
    if not in_slurm:
        code = 0 if job.is_finished() else run_process(job.overrides, config_dirs(hydra))
    else:
        try:
            run_here()
            code = 0
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            code = EXIT_USER_ERROR
    if is_first:
        note_job(record, number, job.overrides, job.folder, code)
    return code


def config_dirs(hydra: HydraConf) -> list[str]:
    """Config folders that were given on the command line."""
    return [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]


def group(hydra: HydraConf) -> dict[str, str]:
    """W&B's environment variable that puts the runs of a sweep's jobs into one group, named by the sweep's folder."""
    return {"WANDB_RUN_GROUP": Path(hydra.sweep.dir).name} if is_sweep(hydra) else {}


def places(cfg: DictConfig, environment: Mapping[str, str] = os.environ) -> tuple[int, list[str]]:
    """How many jobs a sweep runs at a time, and on which GPUs.

    ``sweep.jobs`` where it is given. Otherwise ``sweep.per_gpu`` on every ``trainer.devices`` GPUs; where no GPU is
    used, as many as there are CPU cores for (``threads`` for each of ``trainer.devices``), or one if that is null.

    Args:
        cfg: the configuration of the sweep's jobs.
        environment: environment variables; CUDA_VISIBLE_DEVICES limits the GPUs.

    Returns:
        The number of places, and for every place the value of CUDA_VISIBLE_DEVICES, in turn; empty: no assignment.

    Raises:
        ConfigError: a number below 1, or more devices a job than there are GPUs.
    """
    for key in ("jobs", "per_gpu"):
        value = cfg.sweep[key]
        if value is None and key == "jobs":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            allowed = "a whole number from 1 up" + (", or null" if key == "jobs" else "")
            raise ConfigError(f"sweep.{key}", value, allowed)
    gpus = _gpus(environment) if cfg.trainer.accelerator in ("auto", "gpu", "cuda") else []
    devices = cfg.trainer.devices
    if not isinstance(devices, int) or devices < 1:
        return cfg.sweep.jobs or 1, []
    if not gpus:
        return cfg.sweep.jobs or _jobs_on_cpu(cfg.get("threads"), devices), []
    if devices > len(gpus):
        raise ConfigError("trainer.devices", devices, f"1 to {len(gpus)}, the GPUs of this machine")
    sets = [",".join(gpus[first : first + devices]) for first in range(0, len(gpus) - devices + 1, devices)]
    return cfg.sweep.jobs or cfg.sweep.per_gpu * len(sets), sets


def _jobs_on_cpu(threads: object, devices: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        return 1  # all cores together, or a value that every job refuses
    return max(len(os.sched_getaffinity(0)) // (threads * devices), 1)


def _summarise(record: Path) -> int:
    """Print how the jobs of a sweep stand; its exit code."""
    runs = read_sweep(record)
    status_table(runs).print()
    close_sweep(record)
    return int(any(run.state != "done" for run in runs))


def _gpus(environment: Mapping[str, str]) -> list[Any]:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
