"""Files: found in folders, written so that they appear whole or not at all, and what is remembered of them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from jointiq.errors import DataError, UserError

#: How the names of temporary files begin: hidden, so that nothing takes what a killed process leaves for a result.
_UNFINISHED = ".unfinished-"
#: A temporary file keeps a suffix up to this long; longer ones are no suffixes but names with a dot in them.
_LONGEST_SUFFIX = 16


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path`` in one step, on error it is removed.

    Two processes that write the same ``path`` never mix: the last one to finish wins, whole. Where ``path`` is a link,
    what it points to is written.

    Raises:
        UserError: the folder cannot be created or written, ``path`` is something else than a file, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        if target.exists() and not target.is_file():
            raise UserError(f"cannot write {path}: it is there and is no file")
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = target.suffix if len(target.suffix) <= _LONGEST_SUFFIX else ""
        # Not named after ``path``, whose name may be as long as a name can be.
        handle, name = tempfile.mkstemp(prefix=_UNFINISHED, suffix=suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except FileExistsError as error:
        raise UserError(f"cannot write {path}: {error.filename} is no folder") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


class _Nothing(Exception):
    """Leaves :func:`atomic_path` with nothing written."""


def require_writable(path: Path) -> None:
    """Refuse a path that :func:`atomic_path` could not write, before there is anything to write.

    Raises:
        UserError: as :func:`atomic_path`.
    """
    with contextlib.suppress(_Nothing), atomic_path(path):
        raise _Nothing


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of :func:`atomic_path` that a killed process has left in ``folder`` itself."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink()


def fill_in(text: str, begin: str, end: str, content: str) -> str | None:
    """Return ``text`` with ``content`` between two markers, each a line; None where it lacks one of them."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    return f"{before}{begin}\n\n{content}\n{end}{after}" if found and closed else None


class FileFacts:
    """What has been found out about files, kept as JSON: by the place, size and time of each, which change with it.

    Args:
        kept: the JSON file, which holds nothing where it cannot be read; None: for this process only.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self.kept = kept
        try:
            facts = json.loads(kept.read_text(encoding="utf-8")) if kept else {}
        except (OSError, ValueError):
            facts = {}
        self._facts: dict[str, Any] = facts if isinstance(facts, dict) else {}

    def get(self, path: Path) -> Any:
        """Return what is known of a file; None where nothing is."""
        return self._facts.get(_state(path))

    def set(self, path: Path, fact: Any) -> None:
        """Note ``fact``, which JSON can hold, of a file as it is now."""
        self._facts[_state(path)] = fact

    def save(self) -> None:
        """Write all that is known.

        Raises:
            UserError: the file cannot be written.
        """
        if self.kept:
            write_text(self.kept, json.dumps(self._facts) + "\n")


def _state(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically (see :func:`atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8; what that has no code for (in names of files) as ``\\udcff``."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def read_bytes(path: str | Path) -> bytes:
    """All of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def finite(value: object) -> float | None:
    """Return a value of a JSON file as a float; None where it is no number, or one that a float cannot hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: {error.strerror or error}") from error


def list_files(folder: Path, pattern: str = "**/*", locked: Callable[[OSError], object] = _refuse) -> list[Path]:
    """Return the files in ``folder`` that match the glob ``pattern``, sorted.

    Hidden files are left out, and so is what lies in hidden folders; folders are no files, whatever their names.

    Args:
        locked: called for each subfolder that cannot be looked into; without it, that is an error.

    Raises:
        DataError: the pattern cannot be used, or a folder cannot be looked into.
    """

    def problem(error: OSError) -> object:
        return _refuse(error) if Path(error.filename) == folder else locked(error)

    if "**" in pattern:
        # glob passes over what it may not enter without a word.
        for _ in os.walk(folder, onerror=problem):
            pass
    try:
        matches = sorted(path for path in folder.glob(pattern) if _is_file(path, locked))
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"{folder}: pattern {pattern!r} cannot be used: {error}") from error
    return [path for path in matches if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _is_file(path: Path, locked: Callable[[OSError], object]) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        locked(error)
        return False
