"""One process at a time trains in a run's folder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from jointiq.errors import UserError

_FILE = ".lock"
_POLL_SECONDS = 0.2


class RunLock:
    """The right to train in ``folder``. The system takes it back when the process ends, however it ends.

    POSIX record locks: the kernel, or the server of a network disk, keeps them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[str] | None = None

    def acquire(self, wait_seconds: float = 60.0) -> None:
        """Take it; the folder is created. Wait for a process that is still saving what it trained.

        Taken again, it is the lock of what is at the folder's path by then.

        Raises:
            UserError: another process holds it, and goes on.
        """
        self.release()
        limit = time.monotonic() + wait_seconds
        told = False
        while not self._take():
            if time.monotonic() > limit:
                raise UserError(
                    f"{self.folder} is being trained by another process; allowed: wait for it or stop it, or another "
                    "paths.run_dir"
                )
            if not told:
                print(f"waiting for another process that trains in {self.folder}", flush=True)
                told = True
            time.sleep(_POLL_SECONDS)

    def _take(self) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / _FILE).open("a")
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror or error}") from error
        if _try_lock(file) and _is_at(self.folder / _FILE, file):
            self._file = file
            return True
        file.close()
        return False

    @property
    def is_held(self) -> bool:
        """Whether this process has it."""
        return self._file is not None

    def release(self) -> None:
        """Give it back; nothing happens where it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def is_locked(folder: Path) -> bool:
    """Whether another process is training in ``folder``. Not for the process that does it itself."""
    try:
        with (folder / _FILE).open("a") as file:
            return not _try_lock(file)
    except OSError:
        return False


def _is_at(path: Path, file: IO[str]) -> bool:
    """Whether ``file`` is what is at ``path`` by now: its folder may have been moved aside since it was opened."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # a file system without locks: nothing can be known
    return True
