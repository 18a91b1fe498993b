"""A sweep (``-m``): its jobs, run here or by another launcher of Hydra's, and how they stand.

:mod:`hydra_plugins.jointiq_sweeps` is what Hydra sees of it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from jointiq.command_line import program
from jointiq.errors import EXIT_TERMINATED, EXIT_USER_ERROR, ConfigError, UserError, one_line_errors
from jointiq.runs.job_notes import note_job
from jointiq.runs.status import read_sweep, status_table
from jointiq.sweeps.curves import close_sweep, too_few_rates
from jointiq.sweeps.jobs import Job, JobResult, clear_notes, run_jobs
from jointiq.sweeps.processes import run_process
from jointiq.training.validation import refuse_unread
from jointiq.typed import task_overrides

_POLL_SECONDS = 5.0


class JobFailed(CompactHydraException):
    """A training that has not been finished; Hydra prints it without a traceback."""


def launch_here(hydra: HydraConf, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run jobs of a sweep in processes of their own and return what has become of each.

    A job's return value is its ``optimized_metric``, of an earlier run where that is finished; a failed one raises
    :class:`JobFailed` for who asks for its value.

    Args:
        hydra: the sweep's settings.
        job_overrides: what is typed for each job.
        first: number of the first one in the sweep; sweepers may launch several batches.

    Raises:
        SystemExit: code 2, wrong numbers of jobs or devices, or a ``rerun=`` that names no run; 130, Ctrl-C; 143,
            SIGTERM. Started jobs have saved.
    """
    with one_line_errors():
        jobs = jobs_of(job_overrides)
        at_once, gpus = places(jobs[0].cfg)
        record = Path(hydra.sweep.dir)
        if first == 0:
            _tell_of_few_rates(jobs)
        results = run_jobs(jobs, at_once, gpus, config_dirs(hydra), group(hydra), record, first)
    if any(result.code in (None, EXIT_TERMINATED) for result in results):
        sys.exit(EXIT_TERMINATED)
    return [_job_return(result) for result in results]


def jobs_of(job_overrides: Sequence[Sequence[str]]) -> list[Job]:
    """Return the jobs of a sweep.

    Raises:
        UserError: a key that nothing reads, in what is typed for all of them, or a ``rerun=`` that names no run.
        HydraException: an override that does not go with the configs.
    """
    jobs = [Job.of(overrides) for overrides in job_overrides]
    if jobs[0].cfg.rerun is None:
        refuse_unread("train", jobs[0].cfg, jobs[0].overrides)
    return jobs


def _tell_of_few_rates(jobs: Sequence[Job]) -> None:
    # A job without a folder has a wrong configuration, and says so itself; one alone is no sweep.
    if len(jobs) > 1 and (line := too_few_rates([job.cfg for job in jobs if job.folder is not None])):
        print(line, flush=True)


def _job_return(result: JobResult) -> JobReturn:
    returned = JobReturn(overrides=result.job.overrides, cfg=result.job.cfg, task_name="train")
    try:
        if result.code != 0:
            raise JobFailed(f"exit code {result.code}; its message is above or in the job's log")
        returned.return_value = result.job.metric()
        returned.status = JobStatus.COMPLETED
    except (JobFailed, UserError) as error:
        returned.return_value = error
        returned.status = JobStatus.FAILED
    return returned


def launch_elsewhere(launcher: Launcher, record: Path, job_overrides: Sequence[Sequence[str]], first: int) -> None:
    """Run jobs of a sweep by another launcher (submitit, Ray), each in a process that it makes.

    All are noted as waiting first: in a cluster's queue it may be long until they start. A job that is lost (its node
    failed, it was cancelled) is told in one line, and those that train are waited for.

    Args:
        record: the sweep's folder.
    """
    with one_line_errors():
        jobs = jobs_of(job_overrides)
    if first == 0:
        _tell_of_few_rates(jobs)
        clear_notes(record, job_overrides)
    for number, job in enumerate(jobs, start=first):
        note_job(record, number, job.overrides, job.folder, None)
    print(f"{len(jobs)} jobs; how they stand: {program('status')} {record}", flush=True)
    try:
        launcher.launch(job_overrides, initial_job_idx=first)
    except Exception as error:  # each launcher has its own for a job without a result
        message = " ".join(str(error).splitlines()[:2])
        print(f"error: {message}; other jobs go on, the same command tries this one again", file=sys.stderr, flush=True)
        while any(run.state == "running" for run in read_sweep(record)):
            time.sleep(_POLL_SECONDS)


def run_elsewhere(hydra: HydraConf, cfg: DictConfig, run_here: Callable[[], object]) -> float:
    """Run one job of a sweep in the process that another launcher has made for it, and return its ``optimized_metric``.

    A task of a SLURM job trains in its own process: SLURM has started one for every device. Everywhere else Lightning
    starts the processes of a distributed run, by repeating a command line, so that the job gets one of its own.

    Args:
        cfg: the job's configuration.
        run_here: trains it in this process.

    Raises:
        JobFailed: the training has failed or was stopped; the sweep's folder says with which exit code.
    """
    job = Job.of(tuple(task_overrides(hydra)), cfg)
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
    if code:
        raise JobFailed(f"exit code {code}; its message is in the job's log")
    return job.metric()


def print_table(record: Path) -> None:
    """Print how the jobs of a sweep stand, if it has any."""
    if runs := read_sweep(record):
        status_table(runs).print()


def close(record: Path, results: Path) -> int:
    """Write what a finished sweep comes down to and return its exit code: 0 where all jobs are done, else 1."""
    close_sweep(record, results)
    return int(any(run.state != "done" for run in read_sweep(record)))


def config_dirs(hydra: HydraConf) -> list[str]:
    """Return the config folders that were given on the command line."""
    return [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]


def group(hydra: HydraConf) -> dict[str, str]:
    """Return W&B's environment variable that puts a sweep's runs into one group, named by the sweep's folder."""
    return {"WANDB_RUN_GROUP": Path(hydra.sweep.dir).name}


def places(cfg: DictConfig, environment: Mapping[str, str] = os.environ) -> tuple[int, list[str]]:
    """Return how many jobs a sweep runs at a time, and on which GPUs.

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


def _gpus(environment: Mapping[str, str]) -> list[Any]:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
