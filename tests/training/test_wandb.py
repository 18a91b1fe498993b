"""W&B runs, read back from the files that an offline run leaves."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from src import train as entry
from src.errors import run_cli
from src.training.loggers import wandb_identity

ROOT = Path(entry.__file__).resolve().parents[1]
TINY = (
    "+experiment=jointiq", "scale=demo", "model.N=4", "model.M=4", "data.batch_size=1", "enhancer.kernels=4",
    "trainer=cpu", "trainer.max_steps=2", "trainer.log_every_n_steps=1", "logger=wandb",
)  # fmt: skip


@dataclass
class Recorded:
    """What a run's file holds."""

    id: str = ""
    group: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False


def records(path: Path) -> Iterator[Any]:
    """Records of a ``.wandb`` file: LevelDB's log format (blocks of 32 KiB) of W&B's protocol buffers.

    wandb itself has no public reader any more (its last one left with the Python service).
    """
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:
            break
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def read(folder: Path) -> list[Recorded]:
    """The offline runs in a run's folder, oldest first."""
    runs = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        recorded = Recorded()
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                recorded.id, recorded.group = record.run.run_id, record.run.run_group
                recorded.name = record.run.display_name
                recorded.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                items = record.history.item
                recorded.rows.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
            elif kind == "exit":
                recorded.finished = record.exit.exit_code == 0
        runs.append(recorded)
    return runs


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def run(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.setattr(sys, "argv", ["src/train.py", *overrides])
    with pytest.raises(SystemExit) as exit_info:
        run_cli(entry.main)
    return int(exit_info.value.code or 0)


def test_a_run_and_its_continuation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "jointiq" / "one"
    where = (f"paths.results={tmp_path}", f"paths.run_dir={folder}")
    monkeypatch.setenv("WANDB_RUN_GROUP", "study")
    assert run(monkeypatch, *TINY, *where) == 0
    (first,) = read(folder)
    assert first.finished and first.group == "study" and first.name == "jointiq/one"
    assert first.config["model"]["N"] == 4 and first.config["optim"]["lr"] == 1e-3 and first.config["lmbda"] == 0.03

    values = {key for row in first.rows for key in row}
    both = {f"{kind}/{key}" for kind in ("train", "val") for key in ("loss", "bpp", "bpp_y", "bpp_z", "psnr")}
    assert both | {"val/ms_ssim", "lr", "steps_per_second", "val/image_0.captions"} <= values
    losses = [row["train/loss"] for row in first.rows if "train/loss" in row]
    assert len(losses) == 2 and all(loss > 0 for loss in losses)
    (row,) = (row for row in first.rows if "val/image_0.captions" in row)
    assert row["val/image_0.count"] == 5 and row["val/image_0.captions"][0] == "original"
    (means,) = (row for row in first.rows if "val/psnr" in row)
    assert row["trainer/global_step"] == means["trainer/global_step"]
    media = list(folder.glob("wandb/offline-run-*/files/media/images/val/*.png"))
    assert len(media) == 5 and sum(path.stat().st_size for path in media) < 1_000_000

    last = folder / "checkpoints" / "last.ckpt"
    assert run(monkeypatch, *TINY, *where, "trainer.max_steps=3", f"ckpt_path={last}") == 0
    _, second = read(folder)
    assert second.id == first.id


def test_ids_are_those_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "jointiq" / "lmbda0.1_seed0_ab"
    one = wandb_identity(folder / "2_enhancer", tmp_path)
    assert one == wandb_identity(folder / "2_enhancer", tmp_path) and one["name"].endswith("seed0_ab/2_enhancer")
    assert wandb_identity(folder, tmp_path)["id"] != one["id"]
    before = wandb_identity(folder, tmp_path)["id"]
    folder.with_name(f"{folder.name}.old1").mkdir(parents=True)
    assert wandb_identity(folder, tmp_path)["id"] != before
    assert wandb_identity(tmp_path / "elsewhere", tmp_path / "results")["name"] == "elsewhere"


@pytest.mark.slow
def test_jobs_of_a_sweep_are_runs_of_one_group(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "src.train", "-m", *TINY, "lmbda=0.5,0.06", f"paths.results={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "sweeps").iterdir()
    runs = [read(folder) for folder in (tmp_path / "runs" / "jointiq").iterdir()]
    assert [len(each) for each in runs] == [1, 1]
    assert {each.group for (each,) in runs} == {sweep.name}
    assert len({each.id for (each,) in runs}) == 2
    assert {each.config["lmbda"] for (each,) in runs} == {0.5, 0.06}
