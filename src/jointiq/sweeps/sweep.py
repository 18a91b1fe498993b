"""Run a sweep (``-m``): its jobs on this machine, on Ray or by another launcher, and its exit code.

:mod:`hydra_plugins.jointiq_sweeps` makes it known to Hydra.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from jointiq.command_line import program
from jointiq.errors import EXIT_TERMINATED, EXIT_USER_ERROR, UserError, one_line_errors
from jointiq.runs.job_notes import JOBS, find_note, note_file, note_job
from jointiq.runs.lock import is_locked
from jointiq.runs.status import read_sweep, status_table
from jointiq.sweeps import slurm
from jointiq.sweeps.curves import close_sweep, too_few_rates
from jointiq.sweeps.jobs import Job, JobResult, clear_notes, run_jobs
from jointiq.sweeps.on_ray import run_on_ray
from jointiq.sweeps.processes import run_process
from jointiq.sweeps.resources import places
from jointiq.typed import task_overrides

_POLL_SECONDS = 5.0


class JobFailed(CompactHydraException):
    """A job has failed or was stopped; Hydra prints the message without a traceback."""


def launch_here(hydra: HydraConf, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run jobs of a sweep on this machine (:func:`jointiq.sweeps.jobs.run_jobs`); see :func:`_launch`."""

    def run(jobs: list[Job], record: Path) -> list[JobResult]:
        at_once, gpus = places(jobs[0].cfg)
        return run_jobs(jobs, at_once, gpus, config_dirs(hydra), group(hydra), record, first)

    return _launch(hydra, job_overrides, first, run)


def launch_on_ray(
    hydra: HydraConf, job_overrides: Sequence[Sequence[str]], first: int, address: str | None, cpus: int | None
) -> list[JobReturn]:
    """Run jobs of a sweep on a Ray cluster (:func:`jointiq.sweeps.on_ray.run_on_ray`); see :func:`_launch`."""

    def run(jobs: list[Job], record: Path) -> list[JobResult]:
        return run_on_ray(jobs, address, cpus, config_dirs(hydra), group(hydra), record, first)

    return _launch(hydra, job_overrides, first, run)


def _launch(
    hydra: HydraConf,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    run: Callable[[list[Job], Path], list[JobResult]],
) -> list[JobReturn]:
    """Run jobs of a sweep and return how each ended.

    The return value of a job is its ``optimized_metric``. That of a failed job raises :class:`JobFailed` when it is
    read.

    Args:
        hydra: the sweep's settings.
        job_overrides: the overrides of each job.
        first: number of the first job in the sweep; sweepers may launch several batches.
        run: runs the jobs, given the sweep's folder.

    Raises:
        SystemExit: code 2: a wrong value, or a ``rerun=`` that names no run; 130: Ctrl-C; 143: SIGTERM. Started jobs
            have saved.
    """
    with one_line_errors():
        jobs = jobs_of(job_overrides, first)
        if first == 0:
            _tell_of_few_rates(jobs)
        results = run(jobs, Path(hydra.sweep.dir))
    if any(result.code in (None, EXIT_TERMINATED) for result in results):
        sys.exit(EXIT_TERMINATED)
    return [_job_return(result) for result in results]


def jobs_of(job_overrides: Sequence[Sequence[str]], first: int = 0) -> list[Job]:
    """Return jobs of a sweep; those of its first batch are all checked before one of them trains.

    What a later batch tries (values that an optimising sweeper draws) is a failed job where it is wrong.

    Raises:
        UserError: see :meth:`Job.check`, or a ``rerun=`` that names no run.
        HydraException: an override that does not go with the configs.
    """
    jobs = [Job.of(overrides) for overrides in job_overrides]
    if first == 0:
        for job in jobs:
            job.check()
    return jobs


def _tell_of_few_rates(jobs: Sequence[Job]) -> None:
    # A single job makes no curve.
    if len(jobs) > 1 and (line := too_few_rates([job.cfg for job in jobs])):
        print(line, flush=True)


def _job_return(result: JobResult) -> JobReturn:
    returned = JobReturn(overrides=result.job.overrides, cfg=result.job.cfg, task_name="train")
    try:
        if result.code != 0:
            raise JobFailed(f"exit code {result.code}: {result.message or 'its message is above or in its log'}")
        returned.return_value = result.job.metric()
        returned.status = JobStatus.COMPLETED
    except (JobFailed, UserError) as error:
        returned.return_value = error
        returned.status = JobStatus.FAILED
    return returned


def launch_elsewhere(launcher: Launcher, record: Path, job_overrides: Sequence[Sequence[str]], first: int) -> None:
    """Run jobs of a sweep by another launcher (submitit), and wait for them.

    Jobs that are finished, queued or running already are not submitted; the last two are waited for as well. A lost job
    (cancelled, or its node failed) is reported in a line, and the others go on.

    Args:
        record: the sweep's folder.

    Raises:
        SystemExit: code 2: a setting that cannot be used, or a cluster that refuses the jobs; 130: Ctrl-C, after which
            submitted jobs go on.
    """
    with one_line_errors():
        jobs = dict(enumerate(jobs_of(job_overrides, first), start=first))
        in_slurm = slurm.is_slurm(launcher)
        if in_slurm:
            slurm.check_settings(launcher, jobs[first].cfg)
        known = slurm.queued(record.parent, record) if in_slurm else {}
        if first == 0:
            _tell_of_few_rates(list(jobs.values()))
            clear_notes(record, job_overrides)
        to_do: dict[int, Job] = {}
        in_queue: dict[int, slurm.QueuedJob] = {}
        for number, job in jobs.items():
            finished, place = job.is_finished(), str(job.folder and job.folder.resolve())
            # It may wait in the cluster's queue for long; until it starts its note says waiting.
            note_job(record, number, job.overrides, job.folder, 0 if finished else None)
            if finished:
                _say(number, first + len(jobs), "finished before, skipped")
            elif place in known:
                in_queue[number] = slurm.follow(record, number, known[place])
                _say(number, first + len(jobs), f"in the queue already: SLURM job {known[place].name}")
            elif job.folder is not None and is_locked(job.folder):
                _say(number, first + len(jobs), "being trained by another process already")
            else:
                to_do[number] = job
        submitted: dict[int, slurm.QueuedJob] = {}
        if in_slurm and to_do:
            try:
                submitted = slurm.submit(launcher, record, to_do)
            except UserError:
                for number in to_do:
                    note_file(record, number).unlink()  # it does not wait for anything
                raise
        started = f"{len(to_do)} job{'' if len(to_do) == 1 else 's'} started"
        print(f"{started}; how all stand: {program('status')} {record}", flush=True)
        if submitted:
            names = ", ".join(job.name for job in submitted.values())
            print(f"in SLURM: {names} (Ctrl-C leaves them there); what they print: {record / '.submitit'}", flush=True)
        if in_slurm:
            for number, code in slurm.wait_for(in_queue | submitted).items():
                note_job(record, number, jobs[number].overrides, jobs[number].folder, code)
        elif to_do:
            _run_by(launcher, [job.overrides for job in to_do.values()], first)
        while any(run.state == "running" for run in read_sweep(record)):
            time.sleep(_POLL_SECONDS)


def _run_by(launcher: Launcher, job_overrides: Sequence[Sequence[str]], first: int) -> None:
    try:
        launcher.launch(job_overrides, initial_job_idx=first)
    except Exception as error:  # each launcher has its own for a job without a result
        message = " ".join(str(error).splitlines()[:2])
        print(f"error: {message}; other jobs go on, the same command tries this one again", file=sys.stderr, flush=True)


def _say(number: int, last: int, text: str) -> None:
    print(f"[{number + 1}/{last}] {text}", flush=True)


def run_elsewhere(hydra: HydraConf, cfg: DictConfig, run_here: Callable[[], object]) -> float:
    """Run one job of a sweep in the process that another launcher started for it; return its ``optimized_metric``.

    A task of a SLURM job trains in this process, because SLURM has started one for every device. Elsewhere Lightning
    starts the processes of a distributed run by repeating the command line, so the job gets a process with its own.

    Args:
        cfg: the job's config.
        run_here: trains it in this process.

    Raises:
        JobFailed: the training failed or was stopped; the exit code is in the job's note.
    """
    job = Job.of(tuple(task_overrides(hydra)), cfg)
    record = Path(hydra.sweep.dir)
    os.environ.update({**group(hydra), **os.environ})
    from lightning.fabric.plugins.environments import SLURMEnvironment  # late: help does not wait for it

    from jointiq.training.run import quiet

    quiet()  # Lightning would remark that there is a program `srun`

    in_slurm = SLURMEnvironment.detect()
    is_first = not in_slurm or os.environ.get("SLURM_PROCID", "0") == "0"
    if is_first:
        note_job(record, _number(record, job, hydra.job.num), job.overrides, job.folder, None)
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
        note_job(record, _number(record, job, hydra.job.num), job.overrides, job.folder, code)
    if code:
        raise JobFailed(f"exit code {code}; its message is in the job's log")
    return job.metric()


def _number(record: Path, job: Job, given: int) -> int:
    """Return the number of ``job`` by its note, or ``given``: launchers do not count jobs that are not submitted."""
    numbers = [given, *sorted(int(path.stem) for path in (record / JOBS).glob("*.json"))]
    typed = list(job.overrides)
    notes = {one: find_note(note_file(record, one)) for one in numbers}
    return next((one for one, note in notes.items() if note is not None and note.overrides == typed), given)


def print_table(record: Path) -> None:
    """Print the status of a sweep's jobs, if it has any."""
    if runs := read_sweep(record):
        status_table(runs).print()


def close(record: Path, results: Path) -> int:
    """Write the results of a sweep and return its exit code: 0 if all jobs are done, else 1."""
    close_sweep(record, results)
    return int(any(run.state != "done" for run in read_sweep(record)))


def config_dirs(hydra: HydraConf) -> list[str]:
    """Return the config folders that were given on the command line."""
    return [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]


def group(hydra: HydraConf) -> dict[str, str]:
    """Return W&B's environment variable that puts a sweep's runs into one group, named by the sweep's folder."""
    return {"WANDB_RUN_GROUP": Path(hydra.sweep.dir).name}
