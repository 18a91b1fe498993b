"""The lock of a run's folder: held by one process, left by a killed one, gone when the training is over."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jointiq.errors import UserError
from jointiq.runs.lock import is_locked, locked
from tests.training import tiny

HOLD = (
    "import sys, pathlib; from jointiq.runs.lock import locked\n"
    "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that trains in ``tmp_path / "run"``, until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=tiny.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_another_process_waits_and_is_refused(
    holder: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="being trained by another process"), locked(tmp_path / "run", 0.3):
        pass
    assert capsys.readouterr().out == f"waiting for another process that trains in {tmp_path / 'run'}\n"
    assert is_locked(tmp_path / "run") and not is_locked(tmp_path / "other")


def test_another_process_goes_on_when_the_first_has_saved(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert holder.stdin is not None
    threading.Timer(0.5, holder.stdin.close).start()
    with locked(tmp_path / "run", 20):
        assert is_locked(tmp_path / "run") and holder.wait() == 0
    assert not is_locked(tmp_path / "run")


def test_a_killed_process_leaves_no_lock(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / ".run.lock").exists() and not is_locked(tmp_path / "run")
    with locked(tmp_path / "run", 0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_asking_does_not_drop_it(tmp_path: Path) -> None:
    ask = f"import pathlib; from jointiq.runs.lock import is_locked; print(is_locked(pathlib.Path({str(tmp_path)!r})))"
    with locked(tmp_path):
        assert is_locked(tmp_path)
        told = subprocess.run([sys.executable, "-c", ask], cwd=tiny.ROOT, capture_output=True, text=True, check=True)
        assert told.stdout == "True\n"


def test_it_stays_where_the_folder_is_moved_from(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "run.old1")
        assert is_locked(tmp_path / "run") and not is_locked(tmp_path / "run.old1")


def test_a_command_that_leaves_no_run_leaves_no_folders(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "run"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "run"):
        (tmp_path / "a" / "run").mkdir()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), locked(tmp_path / "file" / "run"):
        pass
