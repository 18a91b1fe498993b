"""Many runs, each in a process of its own, some at a time: what is finished is skipped, what was cut goes on."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jointiq.command_line import TRAIN
from jointiq.configs import compose
from jointiq.console import progress_bar
from jointiq.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, ConfigError, UserError
from jointiq.runs import rd_point
from jointiq.runs.folder import is_finished, last_validation
from jointiq.runs.job_notes import JOBS, find_note, note_file, note_job
from jointiq.runs.name import run_folder
from jointiq.runs.resume import config_to_train
from jointiq.runtime import usable_cores
from jointiq.sweeps.processes import PassOnSigterm, exit_code, start_process

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """One run of ``src.train``.

    Attributes:
        overrides: what is typed after ``python -m src.train``.
        cfg: the configuration that gives.
        folder: the run's folder; None where the configuration is wrong: the run itself says how.
    """

    overrides: tuple[str, ...]
    cfg: DictConfig
    folder: Path | None

    @classmethod
    def of(cls, overrides: Sequence[str], cfg: DictConfig | None = None) -> Job:
        """Return the job of these ``overrides``; ``cfg`` is their composed configuration, where it is at hand.

        Raises:
            UserError: ``rerun=`` names no run.
            HydraException: an override that does not go with the configs.
        """
        cfg = config_to_train(compose("train", overrides) if cfg is None else cfg, overrides)
        try:
            folder = run_folder(cfg)
        except (OmegaConfBaseException, ValueError, TypeError):
            folder = None
        return cls(tuple(overrides), cfg, folder)

    def is_finished(self) -> bool:
        """Whether the run's folder holds a finished and measured run of this configuration, not to be trained anew."""
        anew = OmegaConf.select(self.cfg, "resume") == "never" or self.cfg.ckpt_path is not None
        if self.folder is None or anew or not is_finished(self.folder, self.cfg):
            return False
        try:
            return not rd_point.is_missing(self.folder, self.cfg)
        except UserError:
            return False  # wrong test images: the run itself says how

    def metric(self) -> float:
        """Return the finished run's ``optimized_metric``, at its last validation.

        Raises:
            ConfigError: the run has logged no such value.
        """
        key = OmegaConf.select(self.cfg, "optimized_metric")
        values = {} if self.folder is None else last_validation(self.folder)
        if key not in values:
            raise ConfigError("optimized_metric", key, values or "what a validation has logged; there was none")
        return values[key]


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes:
        job: what it was.
        code: exit code of its process: 0 done (or finished before), 130 stopped with Ctrl-C, 143 by SIGTERM; None: not
            started, because the whole was stopped.
        skipped: it had been finished before, and no process was started.
        message: of a job that failed and printed to a file, what it said last; "" where that is not known.
    """

    job: Job
    code: int | None
    skipped: bool = False
    message: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than finished or stopped on demand."""
        return self.code not in (0, None, EXIT_INTERRUPTED, EXIT_TERMINATED)


def run_jobs(
    jobs: Sequence[Job],
    at_once: int = 1,
    gpus: Sequence[str] = (),
    folders: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    record: Path | None = None,
    first: int = 0,
    command: Sequence[str] = TRAIN,
) -> list[JobResult]:
    """Run ``jobs``, each in a process of its own, ``at_once`` at a time, and wait for all of them.

    A job whose run is finished is skipped. All others are started: a run that was cut goes on from its last checkpoint
    (``resume=auto``), one that failed is tried again. A job that fails does not stop the others.

    Args:
        at_once: processes at a time.
        gpus: the GPUs of each place in the queue, as values of CUDA_VISIBLE_DEVICES; a job takes those of the place it
            gets, and with more places than entries they are dealt out in turn. Empty: every job sees what this
            process sees.
        folders: further config folders.
        environment: environment variables of the jobs, where this process has not set them.
        record: folder for ``jobs/NUMBER.json`` (overrides, run folder, exit code, why it failed) and, where several
            run at a time, for what they print, ``jobs/NUMBER.log``, which stays when the same job comes again. None:
            nothing is written, and all print here.
        first: NUMBER of the first job.
        command: what is started for each job, with its overrides as arguments.

    Returns:
        One result a job, in the order of ``jobs``. After SIGTERM the started ones have saved and ended, and the others
        have the code None.

    Raises:
        KeyboardInterrupt: Ctrl-C; it has reached the jobs too, and they have saved.
    """
    if record is not None and first == 0:
        clear_notes(record, [job.overrides for job in jobs])
    variables = {**(environment or {}), **os.environ}
    if at_once > 1 and not gpus:
        # Jobs share the cores; a number that the user has set stays.
        variables.setdefault("OMP_NUM_THREADS", str(max(usable_cores() // at_once, 1)))
    return _Queue(jobs, at_once, gpus, folders, variables, record, first, command).run()


class _Running(NamedTuple):
    """A job's number and process, the file that it prints to, and how long that was before."""

    number: int
    process: subprocess.Popen[bytes]
    output: IO[str] | None
    start: int


@dataclass
class _Queue:
    """The state of :func:`run_jobs`."""

    jobs: Sequence[Job]
    at_once: int
    gpus: Sequence[str]
    folders: Sequence[str]
    environment: Mapping[str, str]
    record: Path | None
    first: int
    command: Sequence[str]
    results: dict[int, JobResult] = field(default_factory=dict)
    #: By place.
    running: dict[int, _Running] = field(default_factory=dict)

    def run(self) -> list[JobResult]:
        waiting = deque(range(len(self.jobs)))
        for number in waiting:
            self._note(number, None)
        several = self.at_once > 1 and self.record is not None
        bar = progress_bar() if several else contextlib.nullcontext()
        with bar as progress, PassOnSigterm() as sigterm:
            task = progress.add_task("jobs", total=len(self.jobs), note="") if progress else None
            while waiting or self.running:
                for place in range(self.at_once):
                    while waiting and place not in self.running and not sigterm.received:
                        self._start(place, waiting.popleft())
                sigterm.watch([one.process for one in self.running.values()])
                if sigterm.received and not self.running:
                    break
                try:
                    time.sleep(_POLL_SECONDS)
                except KeyboardInterrupt:
                    self._wait_for_all()
                    raise
                self._collect()
                if progress and task is not None:
                    progress.update(task, completed=len(self.results), note=f"{len(self.running)} running")
        return [self.results.get(number, JobResult(job, None)) for number, job in enumerate(self.jobs)]

    def _start(self, place: int, number: int) -> None:
        job = self.jobs[number]
        if job.is_finished():
            self._say(number, "finished before, skipped")
            self._end(number, JobResult(job, 0, skipped=True))
            return
        environment = dict(self.environment)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        output, start = None, 0
        if self.at_once > 1 and self.record is not None:
            output = (self.record / JOBS / f"{self.first + number}.log").open("a")
            start = output.tell()
        self._say(number, shlex.join(job.overrides))
        process = start_process(job.overrides, self.folders, environment, output, self.command)
        self.running[place] = _Running(number, process, output, start)

    def _collect(self) -> None:
        for place, (number, process, output, start) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[place]
            result = JobResult(self.jobs[number], exit_code(process.returncode))
            if output is not None:
                output.close()
                if result.failed:
                    said = Path(output.name).read_bytes()[start:].decode(errors="replace")
                    result = replace(result, message=last_words(said))
            self._end(number, result)
            if self.at_once > 1:
                ended = f"ended with exit code {result.code}" + (f": {result.message}" if result.message else "")
                self._say(number, "done" if result.code == 0 else ended)

    def _wait_for_all(self) -> None:
        for one in self.running.values():
            one.process.wait()
        self._collect()

    def _end(self, number: int, result: JobResult) -> None:
        self.results[number] = result
        self._note(number, result.code, result.message)

    def _note(self, number: int, code: int | None, message: str = "") -> None:
        if self.record is not None:
            job = self.jobs[number]
            note_job(self.record, self.first + number, job.overrides, job.folder, code, message)

    def _say(self, number: int, text: str) -> None:
        print(f"[{self.first + number + 1}/{self.first + len(self.jobs)}] {text}", flush=True)


def last_words(text: str) -> str:
    """Why a job failed, by what it printed: its last line that is an error message, or the last line of a traceback.

    Nothing is known of one that was killed while it printed its progress.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    messages = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if messages:
        return messages[-1]
    return lines[-1] if any(line.startswith("Traceback (most recent call last)") for line in lines) else ""


def clear_notes(record: Path, jobs: Sequence[Sequence[str]]) -> None:
    """Remove what an earlier sweep has left in ``record/jobs``, but for the logs of jobs that are the same now.

    Args:
        jobs: what is typed for each, by its number.
    """
    notes = [find_note(note_file(record, number)) for number in range(len(jobs))]
    same = {
        str(number)
        for number, (note, typed) in enumerate(zip(notes, jobs, strict=True))
        if note is not None and note.overrides == list(typed)
    }
    for earlier in (record / JOBS).glob("*.*"):
        if earlier.suffix != ".log" or earlier.stem not in same:
            earlier.unlink()
