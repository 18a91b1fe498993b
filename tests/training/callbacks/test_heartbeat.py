"""What a training tells of itself: its status, its speed and the time left, on the console and in the log."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from jointiq.errors import ConfigError
from jointiq.runs.status import read_status
from jointiq.training import run
from jointiq.training.callbacks import heartbeat
from jointiq.training.callbacks.heartbeat import Heartbeat
from jointiq.training.modules.compression import CompressionModule
from tests.training import tiny


def test_a_run_that_starts_anew_shows_nothing_of_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_images(tmp_path)
    folder = tmp_path / "run"
    again = (*tiny.overrides(tmp_path, 1), f"paths.run_dir={folder}", "resume=never")
    run.train(tiny.config(*again))
    assert read_status(folder)["psnr"] is not None

    def cut(*_: object) -> None:
        raise RuntimeError("cut")

    monkeypatch.setattr(CompressionModule, "training_step", cut)
    with pytest.raises(RuntimeError, match="cut"):
        run.train(tiny.config(*again))
    assert read_status(folder).get("psnr") is None


class Training:
    """Steps of half a second, by a clock of its own, as Lightning tells a callback of them."""

    def __init__(self, callback: Heartbeat, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
        self.callback = callback
        self.now = 100.0
        self.logged: list[tuple[str, float]] = []
        self.module: Any = SimpleNamespace(log=lambda name, value: self.logged.append((name, value)))
        values = {"global_step": 0, "log_every_n_steps": 4, "max_steps": 16, "callback_metrics": {}}
        self.trainer: Any = SimpleNamespace(**{**values, "is_global_zero": True, "interrupted": False, **more})
        monkeypatch.setattr(heartbeat.time, "monotonic", lambda: self.now)
        callback.on_train_start(self.trainer, self.module)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += 0.5
            self.trainer.global_step += 1
            self.callback.on_train_batch_end(self.trainer, self.module)

    def validate(self, **means: float) -> None:
        self.callback.on_validation_start(self.trainer, self.module)
        self.now += 60
        self.trainer.callback_metrics = {f"val/{key}": torch.tensor(value) for key, value in means.items()}
        self.callback.on_validation_end(self.trainer, self.module)


def test_speed_counts_steps_but_not_validation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = Training(Heartbeat(str(tmp_path), "off"), monkeypatch)
    training.step(6)
    training.validate()
    training.step(2)
    assert [value for name, value in training.logged if name == "steps_per_second"] == [2.0, 2.0]
    # 2 s for 4 of 16 steps; then 64 s, with the validation, for 8 of them.
    hours = [value for name, value in training.logged if name == "hours_left"]
    assert hours == pytest.approx([6 / 3600, 64 / 3600])


def test_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(Heartbeat(str(tmp_path), "lines", line_seconds=3), monkeypatch)
    training.step(8)
    training.validate(loss=2.5, bpp=0.25, psnr=30.5)
    training.step(8)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1].split("/")[0] for line in lines if line.startswith("step")] == ["6", "9", "15", "16"]
    assert "2.0/s  0:00:05 left, until " in lines[0]
    assert "validation at step 8: loss 2.5000  bpp 0.2500  psnr 30.5000" in lines


def test_the_status_is_written_every_few_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = Training(Heartbeat(str(tmp_path), "off"), monkeypatch)
    training.step(9)
    assert read_status(tmp_path)["step"] == 0
    training.step()
    status = read_status(tmp_path)
    assert (status["step"], status["steps"], status["seconds_left"], status.get("psnr")) == (10, 16, 3.0, None)
    training.validate(bpp=0.25, psnr=30.5)
    assert (read_status(tmp_path)["bpp"], read_status(tmp_path)["psnr"]) == (0.25, 30.5)


def test_a_validation_that_was_cut_has_no_means(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(Heartbeat(str(tmp_path), "lines"), monkeypatch, interrupted=True)
    training.validate(bpp=0.25, psnr=30.5)
    assert read_status(tmp_path).get("psnr") is None and capsys.readouterr().out == ""


def test_other_processes_show_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(Heartbeat(str(tmp_path), "lines"), monkeypatch, is_global_zero=False)
    training.step(16)
    training.validate(bpp=0.25, psnr=30.5)
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_an_unknown_style_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="callbacks.progress.style='loud'"):
        Heartbeat(str(tmp_path), "loud")


def test_the_bar_stays_on_one_line_of_80_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    callback = Heartbeat(str(tmp_path), "bar")
    written = io.StringIO()
    callback.console = Console(width=80, force_terminal=True, file=written)
    metrics = {"train/loss": 12.3456, "train/bpp": 0.12345, "train/psnr": 30.12345}
    trainer = SimpleNamespace(global_step=1234567, max_steps=3000000, callback_metrics=metrics, is_global_zero=True)
    callback.on_train_start(trainer, SimpleNamespace())
    callback._show(trainer, SimpleNamespace(), 23.6 * 86400)
    callback._bar.refresh()
    lines = [str(line) for line in callback.console.render_lines(callback._bar.get_renderable())]
    callback._close_bar()
    assert len(lines) == 1
    assert "1234567/3000000" in written.getvalue() and "left" in written.getvalue()
