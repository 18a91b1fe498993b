"""``python -m src.train`` as it is typed: runs, folders, errors, sweeps."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from src import train as entry
from src.data.images import write_png
from src.errors import run_cli
from src.models import build_model
from src.training import sweep
from src.training.compression_module import CompressionModule

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
ROOT = Path(entry.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small gain nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``train`` (two images of 140x150) and ``val`` (one of 65x70)."""
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name, size in (("train/a", (140, 150)), ("train/b", (140, 150)), ("val/c", (65, 70))):
        noise = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
        write_png(folder / f"{name}.png", noise.numpy())
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """Exit code of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["src/train.py", *overrides])
    with pytest.raises(SystemExit) as exit_info:
        run_cli(entry.main)
    return int(exit_info.value.code or 0)


def own(images: Path) -> tuple[str, ...]:
    return (*TINY, "data=folder", f"data.train_dir={images / 'train'}", f"data.val_dir={images / 'val'}")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def losses(folder: Path) -> dict[int, float]:
    return {int(row["step"]): float(row["train/loss"]) for row in rows(folder) if row["train/loss"]}


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_run_leaves_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, *TINY, f"paths.results={tmp_path}") == 0
    (folder,) = (tmp_path / "runs" / "jointiq").iterdir()
    assert folder.name.startswith("lmbda0.03_seed0_") and "=" not in str(folder.name)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"checkpoints/last.ckpt", "config.yaml", "provenance.json", "metrics.csv"}

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
    assert expected | {"val/ms_ssim", "lr"} <= names


def test_a_repeated_run_finds_the_same_folder_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path
) -> None:
    command = (*own(images), f"paths.results={tmp_path}", "trainer.max_steps=1")
    assert run(monkeypatch, *command) == run(monkeypatch, *command) == 0
    names = sorted(folder.name for folder in (tmp_path / "runs" / "jointiq").iterdir())
    assert len(names) == 2 and names[1] == f"{names[0]}.old1"
    assert run(monkeypatch, *command, "seed=1") == 0
    assert len(list((tmp_path / "runs" / "jointiq").iterdir())) == 3


def test_small_validation_images_have_no_ms_ssim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    assert run(monkeypatch, *own(images), f"paths.run_dir={tmp_path / 'a'}") == 0
    assert "val/psnr" in rows(tmp_path / "a")[0] and "val/ms_ssim" not in rows(tmp_path / "a")[0]


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
    assert "the loss is nan at step 3" in message and f"last good checkpoint: {last}" in message
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.mprm=false",), "model.mprm"),
        (("data.crop=64",), "data.crop=64"),
        (("scale=paper", "lmbda=0.4"), "lmbda=0.4"),
        (("data=folder",), "data.train_dir"),
        (("data=folder", "data.train_dir=/no/such", "data.val_dir=/no/such"), "/no/such: no such folder"),
        (("ckpt_path=/no/such.ckpt",), "ckpt_path=/no/such.ckpt: no such file"),
        (("model.N=abc",), "model.N='abc'"),
        (("callbacks.progress.style=loud",), "callbacks.progress.style"),
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


def start(*overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "src.train", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_every_job_of_a_sweep_is_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    class FakeProcess:
        def __init__(self, command: list[str]) -> None:
            commands.append(command)

        def wait(self) -> int:
            return 2 if "lmbda=0.5" in commands[-1] else 0

    monkeypatch.setattr(sweep.subprocess, "Popen", FakeProcess)
    job = ("+experiment=jointiq", f"paths.results={tmp_path}")
    assert run(monkeypatch, "-m", *job, "lmbda=0.5,0.06") == 1
    assert [command[1:] for command in commands] == [
        ["-m", "src.train", *job, f"lmbda={lmbda}"] for lmbda in ("0.5", "0.06")
    ]
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[0] == "sweep: 2 jobs, 1 failed"
    assert lines[1].split()[0] == "failed" and lines[2].split()[0] == "done"
    assert run(monkeypatch, "-m", *job, "lmbda=0.06,0.03") == 0


@pytest.mark.slow
def test_distributed_jobs_of_a_sweep(tmp_path: Path, images: Path) -> None:
    """Two jobs of two processes each: each is trained once, in a folder of its own."""
    options = ("data.batch_size=2", "optim.schedule=constant")
    common = (*own(images), *options, "trainer.max_steps=2")
    process = start("-m", *common, "trainer=ddp_cpu", "lmbda=0.5,0.06", f"paths.results={tmp_path / 'two'}")
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert output.count("trained at step 2") == 2
    assert len(list((tmp_path / "two" / "runs" / "jointiq").iterdir())) == 2


@pytest.mark.slow
def test_sweep_goes_on_after_a_failed_job(tmp_path: Path, images: Path) -> None:
    process = start("-m", *own(images), "trainer.max_steps=1", "lmbda=1.5,0.5", f"paths.results={tmp_path}")
    output = process.communicate(timeout=110)[0]
    assert process.returncode == 1, output
    assert "sweep: 2 jobs, 1 failed" in output and "failed (exit code 2)" in output
    (folder,) = (tmp_path / "runs" / "jointiq").iterdir()
    assert folder.name.startswith("lmbda0.5_") and (folder / "checkpoints" / "last.ckpt").is_file()


def test_ctrl_c_saves(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "run"
    process = start(*own(images), "trainer.max_steps=100000", f"paths.run_dir={folder}", "trainer.max_time=null")
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (folder / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=50)[0]
    assert process.returncode == 130, output
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step > 0 and f"stopped at step {step}" in output


def test_wandb_run_is_recorded_and_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert run(monkeypatch, *own(images), "logger=wandb", f"paths.run_dir={tmp_path / 'w'}") == 0
    assert len(list((tmp_path / "w" / "wandb").glob("offline-run-*/*.wandb"))) == 1
    assert rows(tmp_path / "w")
    assert sys.modules["wandb"].run is None
