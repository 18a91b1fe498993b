"""``python -m src.demo``: what it starts, and the whole chain but the training."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jointiq.commands import codec, demo
from jointiq.data.images import read_image, write_png
from jointiq.data.sample import sample_images
from jointiq.errors import ConfigError, UserError
from jointiq.evaluation import demo as report
from jointiq.evaluation.rd import read_rd
from jointiq.models import build_model
from tests.marks import slow


def test_training_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def start(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demo.subprocess, "run", start)
    assert demo.train(tmp_path / "run", 90.5, ["seed=3"]) == tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert commands[0][:3] == [sys.executable, "-m", "jointiq.commands.train"]
    assert {"+experiment=jointiq", "scale=demo", "data=sample", "seed=3"} <= set(commands[0])
    assert "trainer.max_time=00:01:30:30" in commands[0]
    assert f"paths.run_dir={tmp_path / 'run'}" in commands[0]


@pytest.mark.parametrize(("code", "error"), [(2, UserError), (130, KeyboardInterrupt)])
def test_a_training_that_stops_stops_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[BaseException]
) -> None:
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code))
    with pytest.raises(error):
        demo.train(tmp_path, 1)


def test_minutes_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="--train-minutes"):
        demo.main(["--train-minutes", "0"])


@pytest.mark.parametrize("separate", [False, slow(True)])
def test_the_chain_with_an_untrained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], separate: bool
) -> None:
    def decode_here(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", "jointiq.commands.codec"]
        monkeypatch.setattr(sys, "argv", command[2:])
        return subprocess.CompletedProcess(command, codec.main())

    if not separate:
        monkeypatch.setattr(report.subprocess, "run", decode_here)
    short = tuple(dataclasses.replace(anchor, settings=anchor.settings[:3]) for anchor in report.ANCHORS)
    monkeypatch.setattr(report, "ANCHORS", short)
    for path in sample_images("test"):
        write_png(tmp_path / "photographs" / path.name, read_image(path)[:170, :180])
    monkeypatch.setattr(demo, "sample_images", lambda split: sorted((tmp_path / "photographs").iterdir()))
    torch.manual_seed(0)
    enhancer = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
    model = build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": enhancer})
    weights = {f"net.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_config": model.config, "state_dict": weights}, tmp_path / "tiny.ckpt")

    assert demo.main(["--checkpoint", str(tmp_path / "tiny.ckpt"), "--output", str(tmp_path / "demo")]) == 0
    curve = read_rd(tmp_path / "demo" / "rd.json")
    assert [row["image"] for row in curve.images] == ["chelsea", "coffee", "flower"]
    for row in curve.images:
        assert row["bytes"] == (tmp_path / "demo" / "files" / f"{row['image']}.jiq").stat().st_size
        assert row["latents_equal"] is True
    out = capfd.readouterr().out
    assert "mean" in out and "JPEG 2000" in out
    for name in ("table.md", "table.csv", "rd.png", "rd.svg", "pictures.png", "decoded/coffee.png"):
        assert str(tmp_path / "demo" / name) in out and (tmp_path / "demo" / name).is_file()
