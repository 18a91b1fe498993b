"""Submit jobs of a sweep to SLURM with submitit, and watch them with ``squeue``, which needs no accounting.

The id of a job in SLURM is kept in ``jobs/NUMBER.slurm`` of its sweep's folder, so that the same command, typed again
with whatever sweep folder, knows what is queued or running.
"""

from __future__ import annotations

import getpass
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from jointiq.errors import ConfigError, UserError
from jointiq.files import write_text
from jointiq.runs.job_notes import JOBS, find_note, note_file
from jointiq.sweeps.jobs import Job
from jointiq.sweeps.resources import cores_of_a_process

#: States of a job that has ended.
_ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
)
_GONE = "no longer in the queue"
# Seconds between two looks at the queue, which grow from the first to the last of these.
_FIRST_PAUSE_SECONDS, _PAUSE_FACTOR, _LONGEST_PAUSE_SECONDS = 2.0, 1.5, 60.0
#: SLURM may send the signal by so much earlier than asked.
_EARLY_SECONDS = 60
#: Suffix of the files with the ids of jobs.
_NUMBER = ".slurm"


@dataclass(frozen=True)
class QueuedJob:
    """A job in SLURM's queue.

    Attributes:
        name: its id there, with the index in its array: ``17_2``.
        note: its note (:mod:`jointiq.runs.job_notes`).
    """

    name: str
    note: Path


@dataclass(frozen=True)
class Task:
    """What a task of a SLURM job runs: submitit's launcher, which keeps a failure to itself, with its exit code.

    Attributes:
        launcher: runs the job, given what it was submitted with, and returns how that ended.
    """

    launcher: Any

    def __call__(self, *given: Any) -> Any:
        """Run the job; a failed one ends the process with 1, which SLURM shows as FAILED."""
        returned = self.launcher(*given)
        if returned.status == JobStatus.FAILED:
            sys.exit(1)
        return returned

    def checkpoint(self, *given: Any) -> Any:
        """Return what is submitted when the job's time is over."""
        from submitit.helpers import DelayedSubmission  # late, as in :func:`submit`

        return DelayedSubmission(self, *given)


def is_slurm(launcher: Launcher) -> bool:
    """Return whether ``launcher`` is submitit's for SLURM."""
    return getattr(launcher, "_EXECUTOR", None) == "slurm"


def check_settings(launcher: Any, cfg: DictConfig) -> None:
    """Refuse settings with which no job could train, and set the cores of a task where they are null.

    Args:
        launcher: submitit's; ``params`` are the keys of ``hydra.launcher``.
        cfg: the config of the sweep's jobs.

    Raises:
        ConfigError: a time limit that leaves no time to train in, or more cores than a machine has.
    """
    settings = launcher.params
    limit, delay = settings["timeout_min"], settings["signal_delay_s"]
    if limit * 60 <= delay + _EARLY_SECONDS:
        raise ConfigError(
            "hydra.launcher.timeout_min",
            limit,
            f"from {(delay + _EARLY_SECONDS) // 60 + 1} up, or a smaller hydra.launcher.signal_delay_s: SLURM may ask "
            f"{_EARLY_SECONDS} s early, and a job that is asked to save at once would be queued again for ever",
        )
    there = _cores_of_a_machine(settings.get("partition"))
    tasks = settings["tasks_per_node"]
    largest = None if there is None else there // tasks
    if settings["cpus_per_task"] is None:
        wanted = cores_of_a_process(cfg, on_gpu=bool(settings["gpus_per_node"]))
        settings["cpus_per_task"] = max(min(one for one in (wanted, largest, 256) if one is not None), 1)
    if largest is not None and settings["cpus_per_task"] > largest:
        machine = f"the largest machine of the partition has {there} cores, for {tasks} task{'s' * (tasks > 1)}"
        raise ConfigError("hydra.launcher.cpus_per_task", settings["cpus_per_task"], f"up to {largest}: {machine}")


def _cores_of_a_machine(partition: str | None) -> int | None:
    """Return the cores of the partition's largest machine; None: unknown."""
    words = ["sinfo", "--noheader", "--Node", "--format=%c", *([f"--partition={partition}"] if partition else [])]
    counts = [line.strip() for line in (_output_of(words) or "").splitlines()]
    return max((int(count) for count in counts if count.isdecimal()), default=None)


def queued(sweeps: Path, record: Path) -> dict[str, QueuedJob]:
    """Return the jobs of all sweeps that are queued or running, by the folders of their runs.

    Args:
        sweeps: the folder that holds the folders of sweeps.
        record: one more folder of a sweep.
    """
    states = _queue() or {}
    found = {}
    for file in {*sweeps.glob(f"*/{JOBS}/*{_NUMBER}"), *(record / JOBS).glob(f"*{_NUMBER}")}:
        name, note = file.read_text().strip(), file.with_suffix(".json")
        known = find_note(note)
        if known is not None and known.folder is not None and states.get(name, _ENDED[0]) not in _ENDED:
            found[str(known.folder)] = QueuedJob(name, note)
    return found


def submit(launcher: Any, record: Path, jobs: Mapping[int, Job]) -> dict[int, QueuedJob]:
    """Submit ``jobs`` to SLURM, several as an array, and note the id of each.

    Args:
        launcher: submitit's, which the cluster calls with each job.
        record: the sweep's folder.
        jobs: by their numbers in the sweep.

    Raises:
        UserError: SLURM refuses the jobs or is not there.
    """
    import submitit  # late, as Hydra's launcher does: it may not be installed
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    settings = dict(launcher.params)
    folder, times = settings.pop("submitit_folder"), settings.pop("max_num_timeout")
    common = BaseQueueConf.__dataclass_fields__
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=times)
        executor.update_parameters(**{key if key in common else f"slurm_{key}": settings[key] for key in settings})
        submitted = executor.map_array(
            Task(launcher),
            [list(job.overrides) for job in jobs.values()],
            ["hydra.sweep.dir"] * len(jobs),
            list(jobs),
            [f"job_id_for_{number}" for number in jobs],
            [Singleton.get_state()] * len(jobs),
        )
    except Exception as error:  # submitit has one of its own for every cause; what SLURM says is in its last line
        reason = str(error).strip().splitlines()[-1]
        hint = "; trainer=cpu and trainer=ddp_cpu ask for no GPU" if "(gres)" in reason else ""
        raise UserError(f"hydra/launcher=slurm: {reason}{hint}") from error
    queued = {
        number: QueuedJob(job.job_id, note_file(record, number)) for number, job in zip(jobs, submitted, strict=True)
    }
    return {number: follow(record, number, job) for number, job in queued.items()}


def follow(record: Path, number: int, job: QueuedJob) -> QueuedJob:
    """Note that job ``number`` of the sweep in ``record`` is ``job``; return it with the note that it will write."""
    note = note_file(record, number)
    write_text(note.with_suffix(_NUMBER), job.name + "\n")
    # A job that another sweep submitted writes to that sweep's note.
    return QueuedJob(job.name, note if job.note.parent == note.parent else job.note)


def wait_for(jobs: Mapping[int, QueuedJob]) -> dict[int, int | None]:
    """Wait until all of ``jobs`` have left the queue and return their exit codes.

    A job that leaves the queue without an exit code (None) is reported in a line on stderr.
    """
    waiting, codes = dict(jobs), dict[int, int | None]()
    ended: set[int] = set()
    pause = _FIRST_PAUSE_SECONDS
    while waiting:
        states = _queue()
        for number, job in list(waiting.items()):
            if states is None:
                break
            state = states.get(job.name, _GONE)
            if state not in (*_ENDED, _GONE):
                continue
            known = find_note(job.note)
            code = None if known is None else known.code
            if code is None and number not in ended:
                ended.add(number)  # a shared disk may show it a little later
                continue
            codes[number] = code
            del waiting[number]
            if code is None:
                print(
                    f"error: SLURM job {job.name} has ended without a result ({state}); other jobs go on, the same "
                    "command tries this one again",
                    file=sys.stderr,
                    flush=True,
                )
        if waiting:
            time.sleep(pause)
            pause = min(pause * _PAUSE_FACTOR, _LONGEST_PAUSE_SECONDS)
    return codes


def _queue() -> dict[str, str] | None:
    """Return the state of each of this user's jobs that the cluster remembers; None: it does not answer."""
    user = f"--user={getpass.getuser()}"
    output = _output_of(["squeue", "--noheader", "--array", "--states=all", user, "--format=%i|%T"])
    if output is None:
        return None
    lines = (line.strip().partition("|") for line in output.splitlines())
    return {name: state for name, _, state in lines if state}


def _output_of(words: list[str]) -> str | None:
    """Return what a program prints; None: it is missing or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
