"""``python -m src.train`` as it is typed: runs, folders, errors, sweeps."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from src import train as entry
from src.data.images import write_png
from src.errors import run_cli
from src.models import build_model
from src.models.checkpoint import load_model
from src.training import processes, stages
from src.training.compression_module import CompressionModule
from src.training.validation import refuse_long_trial

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
    files = {str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file()}
    checkpoints = {"checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    assert files == checkpoints | {"config.yaml", "provenance.json", "metrics.csv", "status.json", "done.json"}

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
    assert "the loss is not finite at step 3" in message and f"last good checkpoint: {last}" in message
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert "the loss is not finite" in json.loads((folder / "status.json").read_text())["failure"]


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
    groups: list[str] = []
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)

    class FakeProcess:
        def __init__(self, command: list[str], env: dict[str, str], stdout: Any, stderr: Any) -> None:
            commands.append(command)
            groups.append(env["WANDB_RUN_GROUP"])

        def poll(self) -> int:
            return 2 if "lmbda=0.5" in commands[-1] else 0

    monkeypatch.setattr(processes.subprocess, "Popen", FakeProcess)
    job = ("+experiment=jointiq", "trainer=cpu", f"paths.results={tmp_path}")
    assert run(monkeypatch, "-m", *job, "lmbda=0.5,0.06") == 1
    assert [command[1:] for command in commands] == [
        ["-m", "src.train", *job, f"lmbda={lmbda}"] for lmbda in ("0.5", "0.06")
    ]
    assert groups[0] == groups[1] == next((tmp_path / "sweeps").iterdir()).name
    output = capsys.readouterr().out
    assert "2 runs: 1 done, 1 failed" in output and re.search(r"lmbda=0\.5 +failed .* exit code 2", output)
    assert run(monkeypatch, "-m", *job, "lmbda=0.06,0.03") == 0


def test_nobody_trains_for_days_on_the_sample_by_accident(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = f"paths.results={tmp_path / 'r'}"
    for command in ((), ("+experiment=jointiq",), ("+experiment=jointiq_full",)):
        assert run(monkeypatch, *command, results) == 2
        assert "scale=demo" in (line := error_line(capsys)) and "data.at_paper_scale=true" in line
    assert not (tmp_path / "r").exists()
    for asked in ("data.at_paper_scale=true", "trainer.max_steps=100", "trainer.max_time=00:00:10:00"):
        refuse_long_trial(compose_config("+experiment=jointiq", asked))


def compose_config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(entry.CONFIGS), version_base="1.3"):
        return compose("train", overrides=list(overrides))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_distributed_jobs_of_a_sweep(tmp_path: Path, images: Path) -> None:
    """Four jobs of two processes each: each is trained once, in a folder of its own."""
    options = ("data.batch_size=2", "optim.schedule=constant")
    common = (*own(images)[1:], *options, "trainer.max_steps=2", "trainer=ddp_cpu", f"paths.results={tmp_path}")
    process = start("-m", "+experiment=ablation_no_gc,jointiq", "lmbda=0.5,0.06", *common)
    output = process.communicate(timeout=580)[0]
    assert process.returncode == 0, output
    assert output.count("trained at step 2") == 4 and "4 runs: 4 done" in output
    folders = [folder for name in ("ablation_no_gc", "jointiq") for folder in (tmp_path / "runs" / name).iterdir()]
    assert len(folders) == 4
    for folder in folders:
        assert [int(row["step"]) for row in rows(folder) if row["train/loss"]] == [0, 1]


@pytest.mark.slow
def test_sweep_goes_on_after_a_failed_job(tmp_path: Path, images: Path) -> None:
    process = start("-m", *own(images), "trainer.max_steps=1", "lmbda=1.5,0.5", f"paths.results={tmp_path}")
    output = process.communicate(timeout=110)[0]
    assert process.returncode == 1, output
    assert "2 runs: 1 done, 1 failed" in output and "exit code 2" in output
    (folder,) = (tmp_path / "runs" / "jointiq").iterdir()
    assert folder.name.startswith("lmbda0.5_") and (folder / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves(tmp_path: Path, images: Path, number: int, code: int) -> None:
    folder = tmp_path / "run"
    process = start(*own(images), "trainer.max_steps=100000", f"paths.run_dir={folder}", "trainer.max_time=null")
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (folder / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(number)
    output = process.communicate(timeout=50)[0]
    assert process.returncode == code, output
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step > 0 and f"stopped at step {step}" in output


def test_wandb_run_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert run(monkeypatch, *own(images), "logger=wandb", f"paths.run_dir={tmp_path / 'w'}") == 0
    assert len(list((tmp_path / "w" / "wandb").glob("offline-run-*/*.wandb"))) == 1
    assert rows(tmp_path / "w")
    assert sys.modules["wandb"].run is None


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights as every reader but a continued training gets them; opened without running what is in the file."""
    return torch.load(last(folder), weights_only=True)["state_dict"]


def changed_parts(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    return {key.split(".")[1] for key in new if key not in old or not old[key].equal(new[key])}


def test_the_same_seed_gives_the_same_losses_and_so_does_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("trainer.max_steps=3", "distortion=ms_ssim", "optim.ema_decay=0.5")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(monkeypatch, *own(images), *options, f"seed={seed}", f"paths.run_dir={tmp_path / name}") == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    assert all(map(torch.equal, weights(tmp_path / "a").values(), weights(tmp_path / "b").values()))

    (line,) = (line for line in capsys.readouterr().out.splitlines() if f"rerun={tmp_path / 'a'}" in line)
    command = line.partition(": ")[2].split()
    assert command[:3] == ["python", "-m", "src.train"]
    assert run(monkeypatch, *command[3:]) == 0
    again = tmp_path / "a.rerun"
    assert losses(again) == losses(tmp_path / "a") and len(losses(again)) == 3
    assert all(map(torch.equal, weights(tmp_path / "a").values(), weights(again).values()))
    assert (tmp_path / "a" / "done.json").is_file()

    assert run(monkeypatch, f"rerun={again}", "trainer.max_steps=1", f"paths.run_dir={tmp_path / 'short'}") == 0
    assert losses(tmp_path / "short") == {0: losses(again)[0]}


def test_mistakes_with_rerun_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, f"rerun={tmp_path}") == 2
    assert f"rerun={tmp_path}: no config.yaml" in error_line(capsys)


def test_the_mean_of_the_weights_is_saved_validated_and_continued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (*own(images), "optim.schedule=constant")
    plain, mean = tmp_path / "plain", tmp_path / "mean"
    assert run(monkeypatch, *common, f"paths.run_dir={plain}") == 0
    assert run(monkeypatch, *common, "optim.ema_decay=0.75", f"paths.run_dir={mean}") == 0
    assert losses(plain) == losses(mean)
    assert float(rows(plain)[-1]["val/loss"]) != float(rows(mean)[-1]["val/loss"])

    checkpoint = torch.load(last(mean), weights_only=True)
    assert int(checkpoint["averaging_state"]["n_averaged"]) == 2
    current = {key: value for key, value in checkpoint["current_model_state"].items() if key.startswith("net.")}
    assert all(value.equal(current[key]) for key, value in weights(plain).items())
    net = load_model(last(mean)).state_dict()
    assert all(value.equal(net[key.removeprefix("net.")]) for key, value in checkpoint["state_dict"].items())

    # After one step the mean is the weights; then mean = 3/4 mean + 1/4 weights.
    assert run(monkeypatch, *common, "trainer.max_steps=1", f"paths.run_dir={tmp_path / 'one'}") == 0
    key = "net.g_a.convs.0.weight"
    expected = 0.75 * weights(tmp_path / "one")[key] + 0.25 * current[key]
    torch.testing.assert_close(checkpoint["state_dict"][key], expected)

    more = ("trainer.max_steps=3", f"paths.run_dir={mean}", f"ckpt_path={last(mean)}")
    assert run(monkeypatch, *common, *more, "optim.ema_decay=0.75") == 0
    later = torch.load(last(mean), weights_only=True)
    assert int(later["averaging_state"]["n_averaged"]) == 3
    moved = 0.75 * expected + 0.25 * later["current_model_state"][key]
    torch.testing.assert_close(later["state_dict"][key], moved)
    capsys.readouterr()
    assert run(monkeypatch, *common, *more) == 2
    assert "with a mean of the weights" in error_line(capsys)


def test_fine_tuning_for_ms_ssim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    mse, tuned = tmp_path / "mse", tmp_path / "tuned"
    assert run(monkeypatch, *own(images), f"paths.run_dir={mse}") == 0
    options = ("distortion=ms_ssim", f"init_from={last(mse)}", "optim.lr=1e-9")
    assert run(monkeypatch, *own(images), *options, f"paths.run_dir={tuned}") == 0
    checkpoint = torch.load(last(tuned), weights_only=True)
    assert (checkpoint["distortion"], checkpoint["global_step"]) == ("ms_ssim", 2)
    for key, value in weights(mse).items():
        torch.testing.assert_close(weights(tuned)[key], value, rtol=1e-4, atol=1e-6)
    assert load_model(last(tuned)).config == load_model(last(mse)).config


@pytest.fixture
def stages_in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a chain's stages without a process each; gives the names of the folders that were trained."""
    trained: list[str] = []

    def run_here(overrides: list[str], config_dirs: list[str]) -> int:
        cfg = compose("train", overrides=list(overrides))
        if cfg.rerun is not None:
            cfg = entry.run_folder.again(cfg.rerun, [text for text in overrides if not text.startswith("rerun=")])
        trained.append(Path(cfg.paths.run_dir).name)
        try:
            entry.train(cfg)
        except KeyboardInterrupt:
            return 130
        return 0

    monkeypatch.setattr(stages, "run_process", run_here)
    return trained


FULL = ("+experiment=jointiq_full", *TINY[1:5], *TINY[6:])


def test_the_staged_recipe(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    stages_in_this_process: list[str],
) -> None:
    folder = tmp_path / "full"
    command = (*FULL, *own(images)[len(TINY) :], f"paths.run_dir={folder}")
    names = ["1_joint", "2_enhancer", "3_crop"]
    assert run(monkeypatch, *command) == 0
    assert stages_in_this_process == names
    output = capsys.readouterr().out
    assert "weights of the compression network taken; the enhancer grdn" in output and "all weights taken" in output

    first, second, third = (folder / name for name in names)
    assert load_model(last(first)).config["enhancer"]["kernels"] == 8
    assert load_model(last(second)).config["enhancer"]["kernels"] == 12
    assert changed_parts(first, second) == {"enhancer", "_extra_state"}
    assert changed_parts(second, third) >= {"g_a", "g_s", "h_a", "h_s", "z_prior", "estimator", "enhancer"}
    assert last(folder).read_bytes() == last(third).read_bytes()
    assert set(rows(second)[0]) & {"train/bpp", "train/loss"} == {"train/loss"}

    stages_in_this_process.clear()
    assert run(monkeypatch, *command) == 0
    assert stages_in_this_process == []
    assert capsys.readouterr().out.count("finished, skipped") == 3

    (second / "done.json").unlink()  # as if it had been cut
    assert run(monkeypatch, *command) == 0
    assert stages_in_this_process == names[1:]
    assert "2_enhancer: continued" in capsys.readouterr().out
    assert not second.with_name("2_enhancer.old1").exists() and third.with_name("3_crop.old1").exists()

    stages_in_this_process.clear()
    assert run(monkeypatch, f"rerun={folder}") == 0
    assert stages_in_this_process == names
    for name in names:
        assert losses(tmp_path / "full.rerun" / name) == losses(folder / name)
        assert all(map(torch.equal, weights(tmp_path / "full.rerun" / name).values(), weights(folder / name).values()))

    # A model that has had the first stage elsewhere.
    stages_in_this_process.clear()
    elsewhere = (*command[:-1], f"paths.run_dir={tmp_path / 'short'}", f"init_from={last(first)}")
    assert run(monkeypatch, *elsewhere) == 0
    assert stages_in_this_process == names[1:]
    assert losses(tmp_path / "short" / "3_crop") == losses(third)

    # One stage alone is the same as in the chain.
    alone = (*command[:-1], "stage=enhancer", f"init_from={last(first)}", f"paths.run_dir={tmp_path / 'alone'}")
    assert run(monkeypatch, *alone) == 0
    assert losses(tmp_path / "alone") == losses(second)


def test_mistakes_with_stages_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = (*FULL, f"paths.run_dir={tmp_path / 'full'}")
    for overrides, message in (
        (("stage=enhancer",), "init_from=None"),
        (("stage=crop", "init_from=/no/such.ckpt"), "init_from: /no/such.ckpt"),
        (("init_from=/no/such.ckpt",), "init_from=/no/such.ckpt: no such file"),
        (("enhancer=none",), "enhancer.name=None"),
        (("scale.stages.crop=40",), "stage.crop=40"),  # of the last two stages, found before the first
        (("ckpt_path=x.ckpt",), "ckpt_path='x.ckpt'"),
    ):
        assert run(monkeypatch, *full, *overrides) == 2
        assert message in error_line(capsys), overrides
        assert not (tmp_path / "full").exists()


def test_a_failed_or_interrupted_stage_ends_the_chain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for code, expected in ((2, 2), (130, 130)):
        monkeypatch.setattr(stages, "run_process", lambda overrides, config_dirs, code=code: code)
        assert run(monkeypatch, *FULL, f"paths.run_dir={tmp_path / str(code)}") == expected
        assert not last(tmp_path / str(code)).exists()
    assert "stage 1 of 3, 1_joint failed with exit code 2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_staged_recipe_at_demo_scale(tmp_path: Path) -> None:
    """As it is typed, on the embedded photographs, at most 25 seconds a stage."""
    command = ("+experiment=jointiq_full", "scale=demo", "trainer=cpu", "trainer.max_time=00:00:00:25")
    process = start(*command, f"paths.run_dir={tmp_path}")
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output
    quality = [float(rows(tmp_path / name)[-1]["val/psnr"]) for name in ("1_joint", "2_enhancer", "3_crop")]
    assert quality[0] > 14 and quality[1] > quality[0] - 0.3 and quality[2] > quality[0]
    model = load_model(last(tmp_path))
    assert model.config["enhancer"]["kernels"] == 12
