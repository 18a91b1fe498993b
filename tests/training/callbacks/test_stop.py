"""The first process of a training ends, with a line, when another one is lost, also where it waits for it for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jointiq.runs.status import write_status
from tests.marks import slow

WAITS = """
import os, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace as Space
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from jointiq.training.callbacks.stop import end_with_others

other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
launcher = Space(procs=[], cluster_environment=Space(creates_processes_externally=False))
end_with_others(Space(strategy=Space(launcher=launcher)), Path(sys.argv[1]), grace=0.2)
lightnings = launcher.procs
lightnings += [subprocess.Popen([sys.executable, "-c", sys.argv[2]]), other]
_ChildProcessObserver(os.getpid(), lightnings, sleep_period=1).start()
while lightnings:
    time.sleep(0.01)
assert len(launcher.procs) == 2
Path(sys.argv[1], "other.pid").write_text(str(other.pid))
time.sleep(3)
print(other.poll())
other.kill()
"""


@pytest.mark.parametrize(
    ("does", "code"),
    [("import os; os.kill(os.getpid(), 9)", 2), slow("raise SystemExit(2)", 2), slow("", 0)],
)
def test_another_process_ends(tmp_path: Path, does: str, code: int) -> None:
    write_status(tmp_path, {"step": 3})
    done = subprocess.run([sys.executable, "-c", WAITS, tmp_path, does], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    status = json.loads((tmp_path / "status.json").read_text())
    other = Path("/proc", (tmp_path / "other.pid").read_text(), "cmdline")
    assert not other.exists() or not other.read_bytes()  # a process that was killed has no command line
    if code:
        told = "another process of this training has ended; the same command goes on"
        assert done.stderr == f"error: {told}\n" and status["failure"] == told and not done.stdout
    else:
        assert done.stdout == "None\n" and "failure" not in status
