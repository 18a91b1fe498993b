"""Files that appear whole or not at all, parts of them, and what is remembered of files."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jointiq.errors import UserError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path`` in one step, on error it is removed.

    Two processes that write the same ``path`` never mix: the last one to finish wins, whole.

    Raises:
        UserError: the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    write_bytes(path, text.encode())
