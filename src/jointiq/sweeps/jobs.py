"""Run jobs on this machine, each in a process of its own, several at a time; skip the finished, continue the others."""

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
from jointiq.training.validation import refuse_missing_package, refuse_unread, validate

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """One run of ``src.train``.

    Attributes:
        overrides: the arguments of ``python -m src.train``.
        cfg: the config composed from them.
        folder: the run's folder; None where the config is wrong, which the run itself will report.
    """

    overrides: tuple[str, ...]
    cfg: DictConfig
    folder: Path | None

    @classmethod
    def of(cls, overrides: Sequence[str], cfg: DictConfig | None = None) -> Job:
        """Return the job of ``overrides``; ``cfg`` is their composed config, if it is at hand.

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

    def check(self) -> None:
        """Refuse wrong values before anything trains; a model's own settings are left to the training.

        Raises:
            UserError: a key that nothing reads, a value that is not allowed, or a package that is not installed.
        """
        if self.cfg.rerun is None:
            refuse_unread("train", self.cfg, self.overrides)
        validate(self.cfg)
        refuse_missing_package(self.cfg)

    def is_finished(self) -> bool:
        """Return whether the run of this config is finished and measured, and is not to be trained anew."""
        anew = OmegaConf.select(self.cfg, "resume") == "never" or self.cfg.ckpt_path is not None
        if self.folder is None or anew or not is_finished(self.folder, self.cfg):
            return False
        try:
            return not rd_point.is_missing(self.folder, self.cfg)
        except UserError:
            return False  # wrong test images, which the run itself will report

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
        job: the job.
        code: exit code of its process: 0 done (or finished before), 130 stopped with Ctrl-C, 143 by SIGTERM; None: not
            started, because the sweep was stopped.
        skipped: it had been finished before, and no process was started.
        message: error of a failed job that printed to a file; "" where it is not known.
    """

    job: Job
    code: int | None
    skipped: bool = False
    message: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, and was not stopped on demand."""
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

    A job whose run is finished is skipped. An interrupted run continues from its last checkpoint (``resume=auto``), a
    failed one is tried again. A job that fails does not stop the others.

    Args:
        at_once: processes at a time.
        gpus: values of CUDA_VISIBLE_DEVICES for the ``at_once`` places; with more places than entries they are used in
            turn. Empty: every job sees the GPUs of this process.
        folders: further config folders.
        environment: environment variables of the jobs, where this process has not set them.
        record: folder of ``jobs/NUMBER.json`` (:mod:`jointiq.runs.job_notes`) and, if several run at a time, of what
            they print, ``jobs/NUMBER.log``, to which a repeated job appends. None: nothing is written, and all print
            to this process's output.
        first: NUMBER of the first job.
        command: what is started for each job, with its overrides as arguments.

    Returns:
        One result for each job, in the order of ``jobs``. After SIGTERM the started jobs have saved and ended, and the
        others have the code None.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the jobs, which receive it as well, have saved.
    """
    if record is not None and first == 0:
        clear_notes(record, [job.overrides for job in jobs])
    variables = {**(environment or {}), **os.environ}
    if at_once > 1 and not gpus:
        # Jobs share the cores, unless the user has set a number.
        variables.setdefault("OMP_NUM_THREADS", str(max(usable_cores() // at_once, 1)))
    return _Queue(jobs, at_once, gpus, folders, variables, record, first, command).run()


class _Running(NamedTuple):
    """A job's number and process, the file that it prints to, and the length of that file before."""

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
    """Return why a job failed from what it printed: its last error message, or the last line of a traceback.

    "" for a job that printed neither, because it was killed.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    messages = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if messages:
        return messages[-1]
    return lines[-1] if any(line.startswith("Traceback (most recent call last)") for line in lines) else ""


def clear_notes(record: Path, jobs: Sequence[Sequence[str]]) -> None:
    """Remove an earlier sweep's files from ``record/jobs``, except the logs of jobs that are the same now.

    Args:
        jobs: the overrides of each job, by its number.
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
