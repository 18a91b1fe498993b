"""Lock of a run's folder, so that only one process at a time trains in it.

The lock file lies beside the folder (``.NAME.lock``), so that it stays in place when the folder is moved aside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from jointiq.errors import UserError


@contextlib.contextmanager
def locked(folder: Path, wait_seconds: float = 60.0) -> Iterator[None]:
    """Hold the lock of ``folder``, which need not exist; the system releases the lock of a killed process.

    Args:
        wait_seconds: how long to wait for another process, which may be saving its last state.

    Raises:
        UserError: another process keeps the lock, or the lock file cannot be written.
    """
    path = _path(folder)
    made = [parent for parent in path.parents if not parent.exists()]
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that trains in {folder}", flush=True)
            lock.acquire(timeout=wait_seconds)
    except Timeout as error:
        raise UserError(
            f"{folder} is being trained by another process; allowed: wait for it or stop it, or another paths.run_dir"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        # Before the release: a process that waits for the lock finds the file gone and makes a new one.
        path.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # a command that could not run leaves no empty folders
            for parent in made:
                parent.rmdir()


def is_locked(folder: Path) -> bool:
    """Return whether a process, this one or another, is training in ``folder``."""
    path = _path(folder)
    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _path(folder: Path) -> Path:
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.lock")
