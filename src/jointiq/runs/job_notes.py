"""Notes of a sweep's jobs, ``SWEEP/jobs/NUMBER.json``: overrides, run folder, exit code and error of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jointiq.errors import DataError
from jointiq.files import read_json, write_text

#: Folder of the notes in the sweep's folder.
JOBS = "jobs"


@dataclass(frozen=True)
class JobNote:
    """The note of one job.

    Attributes:
        overrides: as typed for ``src.train``.
        folder: the run's folder; None: not known yet.
        code: exit code; None: not known yet.
        message: why the job failed, where that is known.
    """

    overrides: list[str]
    folder: Path | None
    code: int | None
    message: str = ""


def note_file(sweep: Path, number: int) -> Path:
    """Return the file of the note of job ``number``."""
    return sweep / JOBS / f"{number}.json"


def note_job(
    sweep: Path, number: int, overrides: Sequence[str], folder: Path | None, code: int | None, message: str = ""
) -> None:
    """Write the note of job ``number``; see :class:`JobNote`."""
    place = None if folder is None else str(folder.resolve())
    values = {"overrides": list(overrides), "folder": place, "code": code, "message": message}
    write_text(note_file(sweep, number), json.dumps(values, indent=2) + "\n")


def job_notes(sweep: Path) -> list[JobNote]:
    """Return the notes of a sweep's jobs in the order of their numbers.

    Raises:
        DataError: a note is damaged.
    """
    paths = [path for path in (sweep / JOBS).glob("*.json") if path.stem.isdecimal()]
    return [read_note(path) for path in sorted(paths, key=lambda path: int(path.stem))]


def read_note(path: Path) -> JobNote:
    """Read one note.

    Raises:
        DataError: there is none, or it is damaged.
    """
    noted = read_json(path)
    values = noted if isinstance(noted, dict) else {}
    overrides, folder, code = (values.get(key) for key in ("overrides", "folder", "code"))
    message = values.get("message", "")  # not in sweeps of earlier versions
    if (
        not isinstance(overrides, list)
        or not all(isinstance(text, str) for text in overrides)
        or not isinstance(folder, str | None)
        or not isinstance(code, int | None)
        or not isinstance(message, str)
    ):
        raise DataError(f"{path} is damaged; allowed: remove it, or type the sweep's command again")
    return JobNote(overrides, None if folder is None else Path(folder), code, message)


def find_note(path: Path) -> JobNote | None:
    """Return one note; None: there is none, or it is damaged."""
    try:
        return read_note(path)
    except DataError:
        return None
