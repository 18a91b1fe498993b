"""Files: found in folders, and written so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from jointiq.errors import DataError, UserError

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
        # Hidden, so that nothing takes what a killed process leaves for a result; not named after ``path``, whose name
        # may be as long as a name can be.
        handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix=suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically (see :func:`atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def read_bytes(path: str | Path) -> bytes:
    """All of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


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
