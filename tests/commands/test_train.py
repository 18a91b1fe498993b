"""``python -m src.train`` as it is typed: runs, folders, errors, signals."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from jointiq.models import build_model
from jointiq.training.modules.compression import CompressionModule
from tests.marks import slow
from tests.training import tiny
from tests.training.typed import TINY, error_line, losses, own, rows, run, start


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


def test_a_run_leaves_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, *TINY, f"paths.results={tmp_path}") == 0
    (folder,) = (tmp_path / "runs" / "jointiq").iterdir()
    assert folder.name.startswith("lmbda0.03_seed0_") and "=" not in str(folder.name)
    files = {str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file()}
    checkpoints = {"checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    described = {"config.yaml", "provenance.json", "metrics.csv", "status.json", "done.json"}
    assert files == checkpoints | described | {"rd.json", "rd.csv"}

    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert (checkpoint["lmbda"], checkpoint["distortion"], checkpoint["name"]) == (0.03, "mse", "jointiq")
    weights = {key.removeprefix("net."): value for key, value in checkpoint["state_dict"].items()}
    build_model(checkpoint["model_config"]).load_state_dict(weights)

    config = OmegaConf.load(folder / "config.yaml")
    assert (config.model.N, config.optim.lr, config.paths.run_dir) == (4, 1e-3, str(folder))
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["packages"]["torch"] and "scale=demo" in provenance["command"]

    names = {key for row in rows(folder) for key, value in row.items() if value}
    expected = {f"{kind}/{key}" for kind in ("train", "val") for key in ("loss", "bpp", "bpp_y", "bpp_z", "psnr")}
    monitors = {"lr", "steps_per_second", "hours_left", "train/grad_norm", "train/sigma_floor"}
    assert expected | monitors | {"val/ms_ssim"} <= names


def test_a_repeated_run_finds_the_same_folder_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*own(images), f"paths.results={tmp_path}", "trainer.max_steps=1")
    assert run(monkeypatch, *command) == run(monkeypatch, *command) == 0
    assert capsys.readouterr().out.count("trained at step 1") == 1
    assert run(monkeypatch, *command, "resume=never") == 0
    names = sorted(folder.name for folder in (tmp_path / "runs" / "jointiq").iterdir())
    assert len(names) == 2 and names[1] == f"{names[0]}.old1"


def test_small_validation_images_have_no_ms_ssim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    assert run(monkeypatch, *own(images), f"paths.run_dir={tmp_path / 'a'}") == 0
    assert "val/psnr" in rows(tmp_path / "a")[0] and "val/ms_ssim" not in rows(tmp_path / "a")[0]


@pytest.mark.slow
def test_resume_takes_up_steps_and_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    seen: list[tuple[int, float]] = []
    step = CompressionModule.training_step

    def watched(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        seen.append((self.global_step, batch.sum().item()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CompressionModule, "training_step", watched)
    command = (*own(images), "optim.schedule=constant")
    assert run(monkeypatch, *command, "trainer.max_steps=4", f"paths.run_dir={tmp_path / 'whole'}") == 0
    whole = seen.copy()
    seen.clear()
    part = tmp_path / "part"
    assert run(monkeypatch, *command, "trainer.max_steps=2", f"paths.run_dir={part}") == 0
    last = part / "checkpoints" / "last.ckpt"
    more = ("trainer.max_steps=4", f"paths.run_dir={part}", f"ckpt_path={last}")
    assert run(monkeypatch, *command, *more) == 0
    assert seen == whole and [number for number, _ in seen] == [0, 1, 2, 3]
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert sorted(losses(part)) == [0, 1, 2, 3]
    assert not part.with_name("part.old1").exists()


@pytest.mark.slow
def test_a_time_cap_ends_the_run_annealed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "capped"
    options = ("trainer.max_steps=100000", "trainer.max_time=00:00:00:02", f"paths.run_dir={folder}")
    assert run(monkeypatch, *own(images), *options) == 0
    rates = [float(row["lr"]) for row in rows(folder) if row["lr"]]
    assert rates[0] == pytest.approx(1e-3) and rates[-1] < 5e-4
    assert 0 < torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 1000
    assert any(row["val/loss"] for row in rows(folder))


def test_non_finite_loss_keeps_the_last_good_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = CompressionModule.training_step

    def poisoned(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return step(self, batch * float("nan") if self.global_step == 2 else batch, batch_idx)

    monkeypatch.setattr(CompressionModule, "training_step", poisoned)
    folder = tmp_path / "nan"
    options = ("trainer.max_steps=5", "callbacks.checkpoint.every_steps=1", f"paths.run_dir={folder}")
    assert run(monkeypatch, *own(images), *options) == 2
    message = error_line(capsys)
    last = folder / "checkpoints" / "last.ckpt"
    assert "the loss is not finite at step 3" in message and f"last good checkpoint: {last}" in message
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert "the loss is not finite" in json.loads((folder / "status.json").read_text())["failure"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.mprm=false",), "model.mprm"),
        slow(("data.crop=64",), "data.crop=64"),
        slow(("scale=paper", "lmbda=0.4"), "lmbda=0.4"),
        (("data=folder",), "data.train_dir"),
        slow(("data=folder", "data.train_dir=/no/such", "data.val_dir=/no/such"), "/no/such: no such folder"),
        (("ckpt_path=/no/such.ckpt",), "ckpt_path=/no/such.ckpt: no such file"),
        slow(("model.N=abc",), "model.N='abc'"),
        slow(("callbacks.progress.style=loud",), "callbacks.progress.style"),
        (("trainer.accelerator=abacus",), "abacus"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    message: str,
) -> None:
    assert run(monkeypatch, "+experiment=jointiq", "scale=demo", *overrides, f"paths.results={tmp_path / 'r'}") == 2
    assert message in error_line(capsys)
    assert not (tmp_path / "r").exists()


def test_image_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    results = f"paths.results={tmp_path / 'r'}"
    assert run(monkeypatch, *own(images), results, f"data.train_dir={tmp_path / 'empty'}") == 2
    assert f"{tmp_path / 'empty'}: 0 images match pattern '**/*'" in error_line(capsys)
    assert run(monkeypatch, *own(images), results, "data.crop=144") == 2
    assert "a.png is 150x140 pixels, smaller than data.crop=144" in error_line(capsys)
    # Damage behind the header shows only when a worker process reads the image.
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "x.png").write_bytes((images / "train" / "a.png").read_bytes()[:20000])
    options = ("data.num_workers=1", "data.preload_mb=0", f"data.train_dir={damaged}")
    assert run(monkeypatch, *own(images), results, *options) == 2
    assert "x.png is damaged" in error_line(capsys)
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").rglob("*.ckpt"))


def test_another_models_checkpoint_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *own(images), f"paths.run_dir={tmp_path / 'a'}", "trainer.max_steps=1") == 0
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    options = (f"paths.run_dir={tmp_path / 'b'}", f"ckpt_path={last}", "model.N=8")
    assert run(monkeypatch, *own(images), *options) == 2
    assert "N=4 there, 8 here" in error_line(capsys)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("asked", ["debug=fdr", slow("+trainer.fast_dev_run=true")])
def test_a_fast_dev_run_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    assert run(monkeypatch, *own(images), f"paths.results={tmp_path / 'r'}", asked) == 0
    assert "1 steps and a validation went through; nothing is kept" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()


def test_overfitting_sees_one_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    seen: list[float] = []
    step = CompressionModule.training_step

    def watched(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        seen.append(batch.sum().item())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CompressionModule, "training_step", watched)
    assert (
        run(monkeypatch, *own(images), "debug=overfit", "trainer.max_steps=3", f"paths.run_dir={tmp_path / 'a'}") == 0
    )
    assert len(seen) == 3 and len(set(seen)) == 1


def test_without_callbacks_and_log_a_run_is_not_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *own(images), "callbacks=none", "logger=none", f"paths.run_dir={tmp_path / 'a'}") == 0
    assert "nothing saved without callbacks.checkpoint" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"config.yaml", "provenance.json"}


SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@SIGNALS
def test_a_signal_saves(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    step = CompressionModule.training_step

    def stopped(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == 1:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CompressionModule, "training_step", stopped)
    assert run(monkeypatch, *own(images), "trainer.max_steps=9", f"paths.run_dir={tmp_path / 'run'}") == code
    assert "stopped at step 2" in capsys.readouterr().out
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@SIGNALS
def test_a_signal_at_any_time_saves(tmp_path: Path, images: Path, number: int, code: int) -> None:
    folder = tmp_path / "run"
    process = start(*own(images), "trainer.max_steps=100000", f"paths.run_dir={folder}", "trainer.max_time=null")
    while not (folder / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(number)
    output = process.communicate(timeout=50)[0]
    assert process.returncode == code, output
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step > 0 and f"stopped at step {step}" in output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_to_all_processes_saves(tmp_path: Path, images: Path, number: int, code: int, devices: int) -> None:
    """As ``timeout``, ``scancel``, systemd and a terminal send it: loader workers and further processes get it too."""
    folder = tmp_path / "run"
    several = ("trainer=ddp_cpu", f"trainer.devices={devices}") if devices > 1 else ()
    command = (*own(images), "data.batch_size=2", "data.num_workers=2", *several, f"paths.run_dir={folder}")
    process = start(*command, "trainer.max_steps=100000", "trainer.max_time=null", group=True)
    while not (folder / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == code, output
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    lines = [line for line in output.splitlines() if line][2:]
    again = " (Ctrl-C again: at once, without saving)" if number == signal.SIGINT else ""
    assert lines[:3] == [
        f"stopping after this step{again}",
        f"stopped at step {step}: {folder}/checkpoints/last.ckpt",
        "the same command goes on",
    ]
    assert lines[3:] == (["interrupted"] if number == signal.SIGINT else [])
    further = start(*command, f"ckpt_path={folder}/checkpoints/last.ckpt", f"trainer.max_steps={step + 1}")
    output = further.communicate(timeout=200)[0]
    assert f"continuing after step {step}," in output and f"trained at step {step + 1}" in output, output


def test_ctrl_c_that_is_obeyed_at_once_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(CompressionModule, "training_step", interrupted)
    assert run(monkeypatch, *own(images), f"paths.run_dir={tmp_path / 'run'}") == 130
    assert capsys.readouterr().err == "interrupted\n"
