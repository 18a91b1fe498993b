"""Status of runs and sweeps: the ``status.json`` that a training process writes, and the table made of it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from jointiq.console import NOTHING, Table, number
from jointiq.errors import EXIT_HUNG_UP, EXIT_INTERRUPTED, EXIT_TERMINATED, DataError, UserError
from jointiq.evaluation.rd import PSNR, read_rd
from jointiq.files import finite, read_json, write_text
from jointiq.runs.folder import CONFIG, DONE, RD_FILE, find_runs, stage_folders
from jointiq.runs.job_notes import JOBS, job_notes
from jointiq.runs.lock import is_locked

#: File that a training process keeps up to date in its folder.
FILE = "status.json"
STATES = ("done", "running", "failed", "cut", "waiting")

_NUMBERS = ("step", "steps", "bpp", "psnr", "seconds_left", "process", "written")
#: Larger numbers are taken for damage.
_HUGE = 1e12
_STOPPED = (None, 0, EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_HUNG_UP)


@dataclass(frozen=True)
class RunStatus:
    """Status of one run.

    Attributes:
        name: its folder, or the overrides that started it.
        state: ``done``; ``running``, a process trains in its folder; ``failed``; ``cut``, it was stopped or killed, and
            the same command goes on; ``waiting``, it has not begun.
        step, steps: optimizer steps that are done, and of the whole training (of the stage, in a chain).
        bpp, psnr: bits per pixel and dB: of the test images' files where ``measured``, else of the last validation,
            with the rate estimated.
        seconds_left: estimate by the process that trains.
        note: the error of a failure, or the stage of a chain.
        measured: whether the run has an RD point.
    """

    name: str
    state: str
    step: int | None = None
    steps: int | None = None
    bpp: float | None = None
    psnr: float | None = None
    seconds_left: float | None = None
    note: str = ""
    measured: bool = False


def write_status(folder: Path, values: Mapping[str, Any]) -> None:
    """Write ``values`` (step, steps, bpp, psnr, seconds_left, failure) to a run's folder, with process and time.

    If the file cannot be written, the training goes on without it.
    """
    process = {"process": os.getpid(), "host": socket.gethostname(), "written": time.time()}
    try:
        write_text(folder / FILE, json.dumps({**values, **process}, indent=2) + "\n")
    except UserError:
        return


def read_status(folder: Path) -> dict[str, Any]:
    """Return the values of :func:`write_status`, without damaged ones; empty where there are none."""
    try:
        values = read_json(folder / FILE)
    except DataError:
        return {}
    known = values if isinstance(values, dict) else {}
    numbers = {key: value for key in _NUMBERS if (value := finite(known.get(key))) is not None and value < _HUGE}
    for key in ("step", "steps"):
        if key in numbers:
            numbers[key] = int(numbers[key])
    texts = {key: known[key] for key in ("failure", "host") if isinstance(known.get(key), str)}
    return {**numbers, **texts}


def note_failure(folder: Path, message: str) -> None:
    """Add to the status in ``folder``, if that holds a run, why the run failed (one line)."""
    values = read_status(folder)
    if values or (folder / CONFIG).is_file():
        write_status(folder, {**values, "failure": message})


def read_run(folder: Path, name: str | None = None, code: int | None = None, message: str = "") -> RunStatus:
    """Return the status of the run in ``folder``; in a chain of stages, of its current stage.

    Args:
        name: name to show; None: the folder.
        code: exit code of the process that last ran it; None: not known.
        message: error of that process, where it is known.
    """
    stages = [path for path in stage_folders(folder) if (path / FILE).is_file()]
    at = stages[-1] if stages and not (folder / FILE).is_file() else folder
    values = read_status(at)
    failure = values.get("failure")
    if (folder / DONE).is_file():
        state = "done"
    elif is_locked(at):
        state = "running"
    elif failure or code not in _STOPPED:
        state = "failed"
    else:
        state = "cut" if values else "waiting"
    note = failure or (at.name if at != folder else "")
    if state == "failed" and not failure:
        note = _ended(code, message)
    shown: dict[str, Any] = {key: values.get(key) for key in ("step", "steps", "bpp", "psnr")}
    left = values.get("seconds_left") if state == "running" else None
    measured = _measured(folder) if state == "done" else {}
    shown |= measured
    return RunStatus(name or str(folder), state, **shown, seconds_left=left, note=note, measured=bool(measured))


def _measured(folder: Path) -> dict[str, float]:
    """Return bits per pixel and PSNR (dB) of the run's RD point, of the middle one if several; empty without one."""
    try:
        results = read_rd(folder / RD_FILE).results
        middle = len(results["bpp"]) // 2
        return {"bpp": results["bpp"][middle], "psnr": results[PSNR][middle]}
    except (DataError, KeyError):
        return {}


def read_sweep(folder: Path) -> list[RunStatus]:
    """Return the status of the jobs of a sweep, from its folder, ``results/sweeps/NAME``.

    Raises:
        DataError: a damaged note of a job.
    """
    runs = []
    for job in job_notes(folder):
        name = " ".join(job.overrides)
        if job.folder is not None and job.folder.is_dir():
            runs.append(read_run(job.folder, name, job.code, job.message))
        elif job.code in _STOPPED:
            runs.append(RunStatus(name, "done" if job.code == 0 else "waiting"))
        else:
            runs.append(RunStatus(name, "failed", note=_ended(job.code, job.message)))
    return runs


def _ended(code: int | None, message: str) -> str:
    return f"exit code {code}: {message}" if message else f"exit code {code}"


def read_folders(folders: Sequence[Path]) -> list[RunStatus]:
    """Return the status of all runs in ``folders``: sweeps, runs, or folders that hold runs at any depth.

    Raises:
        UserError: a folder that does not exist or holds no runs.
    """
    runs: list[RunStatus] = []
    for folder in folders:
        if (folder / JOBS).is_dir():
            found = read_sweep(folder)
        else:
            found = [
                read_run(path) if path == folder else replace(read_run(path), name=str(path.relative_to(folder)))
                for path in find_runs(folder)
            ]
        if not found:
            missing = "no runs" if folder.is_dir() else "no such folder"
            raise UserError(f"{folder}: {missing}; allowed: the folder of a run, of a sweep, or of several")
        runs += found
    return runs


def status_table(runs: Sequence[RunStatus]) -> Table:
    """Return a table with a row for each run; the title counts the states.

    Words that all names have in common are left out. The note says where the numbers are of the test images.
    """
    counts = [f"{sum(run.state == state for run in runs)} {state}" for state in STATES]
    counts = [text for text in counts if not text.startswith("0 ")]
    header = ("run", "state", "step", "of", "bpp", "PSNR", "left", "note")
    many = "run" if len(runs) == 1 else "runs"
    optional = ("left", "of", "step")
    table = Table(f"{len(runs)} {many}: {', '.join(counts)}", header, 2, optional=optional, texts=1, whole=True)
    common = set.intersection(*(set(run.name.split()) for run in runs)) if len(runs) > 1 else set()
    for run in runs:
        name = " ".join(word for word in run.name.split() if word not in common) or run.name
        steps = [NOTHING if value is None else str(value) for value in (run.step, run.steps)]
        left = NOTHING if run.seconds_left is None else str(timedelta(seconds=round(run.seconds_left)))
        table.rows.append((name, run.state, *steps, number(run.bpp, 4), number(run.psnr, 2), left, _note(run)))
    return table


def _note(run: RunStatus) -> str:
    return ", ".join(text for text in (run.note, "test" if run.measured else "") if text)
