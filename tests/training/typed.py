"""``python -m src.train`` as it is typed, in this process or in one of its own, for trainings of seconds."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jointiq.commands import train as entry
from jointiq.errors import run_cli
from tests.training.tiny import ROOT

TINY = (
    "+experiment=jointiq",
    "scale=demo",
    "model.N=4",
    "model.M=4",
    "data.batch_size=1",
    "enhancer.kernels=4",
    "trainer=cpu",
    "trainer.max_steps=2",
    "trainer.log_every_n_steps=1",
)


def own(images: Path) -> tuple[str, ...]:
    return (*TINY, "data=folder", f"data.train_dir={images / 'train'}", f"data.val_dir={images / 'val'}")


def run(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """Exit code of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["src/jointiq/commands/train.py", *overrides])
    with pytest.raises(SystemExit) as exit_info:
        run_cli(entry.main)
    return int(exit_info.value.code or 0)


def start(*overrides: str, group: bool = False) -> subprocess.Popen[str]:
    """The command line as a process; ``group``: it leads a process group, as one that a shell or a cluster starts."""
    command = [sys.executable, "-W", "ignore", "-m", "src.train", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        process_group=0 if group else None,
    )  # fmt: skip


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def losses(folder: Path) -> dict[int, float]:
    return {int(row["step"]): float(row["train/loss"]) for row in rows(folder) if row["train/loss"]}


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"
