"""Checkpoint files: whole or not at all, the ones before kept, a full disk that eats nothing."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from jointiq.errors import UserError
from jointiq.runs.resume import read_checkpoint
from jointiq.training import run
from jointiq.training.callbacks import checkpoint_io
from jointiq.training.callbacks.checkpoint_io import AtomicCheckpointIO, check_same_model

STATE: dict[str, Any] = {"model_config": {}, "state_dict": {}, "optimizer_states": [], "global_step": 3}


def save(path: Path, step: int, **options: Any) -> None:
    AtomicCheckpointIO().save_checkpoint({**STATE, "global_step": step}, path, storage_options=options or None)


def steps(folder: Path) -> dict[str, int]:
    return {path.name: read_checkpoint(path)["global_step"] for path in folder.iterdir()}


def test_checkpoint_files_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == STATE
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"bad": lambda: None}, path)
    assert steps(path.parent) == {"last.ckpt": 3}


def test_the_ones_before_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path / "last.ckpt", step, keep=3)
    assert steps(tmp_path) == {"last.ckpt": 5, "last-1.ckpt": 4, "last-2.ckpt": 3}


@pytest.mark.parametrize("links", [True, False])
def test_the_last_one_is_there_at_every_moment(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1, keep=2)
    if not links:
        monkeypatch.setattr(checkpoint_io.os, "link", lambda *names: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(path, 2, keep=2)
    assert steps(tmp_path) == {"last.ckpt": 1, "last-1.ckpt": 1}


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 1_500_000))
    big = {**STATE, "state_dict": {"a": torch.zeros(2, 500_000)}}
    with pytest.raises(UserError, match=r"takes 4\.0 MB and the disk has 1\.5 MB left; .* make room"):
        AtomicCheckpointIO().save_checkpoint(big, path)
    assert steps(tmp_path) == {"last.ckpt": 1}


def test_a_disk_that_fills_up_eats_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 1)
    real = torch.save

    def full(checkpoint: Any, file: Any) -> None:
        with open("/dev/full", "wb") as other:
            real(checkpoint, other)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*last\.ckpt: No space left"):
        save(path, 2, keep=2)
    monkeypatch.undo()
    assert steps(tmp_path) == {"last.ckpt": 1}


def test_a_full_disk_of_the_log_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="the disk is full"),
        run.unwrapped_errors(tmp_path / "checkpoints" / "last.ckpt"),
        open("/dev/full", "w") as file,
    ):
        file.write("x")
    with pytest.raises(PermissionError), run.unwrapped_errors(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_weights_alone(tmp_path: Path) -> None:
    save(tmp_path / "best.ckpt", 1, weights=True)
    assert set(torch.load(tmp_path / "best.ckpt", weights_only=True)) == {"model_config", "state_dict", "global_step"}
    with pytest.raises(UserError, match="no training state"):
        read_checkpoint(tmp_path / "best.ckpt")


def test_unusable_checkpoints(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "weights.ckpt")
    whole = tmp_path / "weights.ckpt"
    (tmp_path / "cut.ckpt").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    (tmp_path / "empty.ckpt").touch()
    messages = {"none": "no such file", "weights": "no training state"}
    messages |= dict.fromkeys(("cut", "text", "empty"), "cannot be opened")
    for name, message in messages.items():
        with pytest.raises(UserError, match=message):
            read_checkpoint(tmp_path / f"{name}.ckpt")


def test_another_model_is_named() -> None:
    config = {"name": "jointiq", "N": 4}
    check_same_model({"model_config": config}, config, "a.ckpt")
    with pytest.raises(UserError, match="another model: N=4 there, 8 here"):
        check_same_model({"model_config": config}, {**config, "N": 8}, "a.ckpt")
