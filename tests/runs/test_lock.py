"""The lock of a run's folder is that of what is at its path, whatever is moved while one waits."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest

from jointiq.runs import lock as run_lock


def test_a_folder_that_is_moved_aside_while_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    try_lock, tries = run_lock._try_lock, []

    def moved_before(file: IO[str]) -> bool:
        """Whoever has had the lock moves the folder aside and ends."""
        tries.append(file)
        if len(tries) == 1:
            folder.rename(tmp_path / "run.old1")
        return try_lock(file)

    monkeypatch.setattr(run_lock, "_try_lock", moved_before)
    lock = run_lock.RunLock(folder)
    lock.acquire()
    assert lock.is_held and len(tries) == 2 and (folder / ".lock").is_file()
    lock.release()
    assert not lock.is_held
