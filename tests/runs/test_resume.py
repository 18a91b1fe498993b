"""A training that is cut at any step and started again is the unbroken one, to the bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from jointiq.errors import ConfigError, UserError
from jointiq.runs import folder as run_folder
from jointiq.runs import lock, resume
from jointiq.runs.lock import is_locked, locked
from jointiq.training import run
from jointiq.training.modules.compression import CompressionModule
from tests.marks import slow
from tests.training import tiny

MEAN = "optim.ema_decay=0.7"


class Crash(Exception):
    """Stands for the end of a process: nothing is saved, nothing is told to anyone."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """``crash_at["step"] = n`` cuts the training before its step n; ``crash_at["seen"]`` holds the trained ones."""
    step = CompressionModule.training_step
    control: dict[str, Any] = {"step": None, "seen": []}

    def watched(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == control["step"]:
            raise Crash
        control["seen"].append(self.global_step)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CompressionModule, "training_step", watched)
    run.quiet()
    yield control


def train(images: Path, folder: Path, *more: str) -> None:
    run.train(tiny.config(*tiny.overrides(images), f"paths.run_dir={folder}", *more))


def assert_equal(one: Any, other: Any, at: str = "") -> None:
    """Nested containers of tensors and plain values are the same."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            assert_equal(one[key], other[key], f"{at}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), at
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{at}/{number}")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, at


@pytest.mark.parametrize("optim", [slow(("optim=adam",)), ("optim=soap", "optim.frequency=2")])
def test_a_cut_training_is_the_unbroken_one(
    images: Path, tmp_path: Path, crash_at: dict[str, Any], optim: tuple[str, ...]
) -> None:
    """Losses, data, noise, crops, optimizer, schedule, mean of the weights, log, best checkpoint, loop counters."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    first = tmp_path / "first"
    train(images, first, "trainer.max_steps=1")
    options = ("stage=crop", f"init_from={first}/checkpoints/last.ckpt", MEAN, "trainer.max_steps=6", *optim)
    crash_at["seen"].clear()
    train(images, whole, *options)
    assert crash_at["seen"] == [0, 1, 2, 3, 4, 5]
    crash_at["seen"].clear()
    for crash_at["step"] in (1, 3, 4, 5):  # before a checkpoint, after one, at one, after a validation
        with pytest.raises(Crash):
            train(images, part, *options)
    crash_at["step"] = None
    train(images, part, *options)
    assert crash_at["seen"] == [0, *(0, 1, 2), *(2, 3), *(4,), *(4, 5)]
    assert tiny.rows(part) == tiny.rows(whole) and len(tiny.rows(whole)) == 8
    for name in ("last.ckpt", "last-1.ckpt", "best.ckpt"):
        assert_equal(*(torch.load(run / "checkpoints" / name, weights_only=True) for run in (part, whole)))
    assert not part.with_name("part.old1").exists()


def assert_equal_but_for(validation: int, part: Path, whole: Path) -> None:
    """``part`` has trained what ``whole`` has; only the row of the validation after step ``validation`` is missing."""
    missing = [row for row in tiny.rows(whole) if "val/loss" in row and int(row["step"]) == validation - 1]
    assert len(missing) == 1 and missing[0] not in tiny.rows(part)
    assert tiny.rows(part) == [row for row in tiny.rows(whole) if row not in missing]
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (part, whole)]
    for state in states:  # the least loss of the validations that were
        del state["callbacks"]
    assert_equal(*states)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken training of six steps that validates after the third and the sixth."""
    folder = tmp_path_factory.mktemp("unbroken") / "whole"
    run.quiet()
    train(images, folder, MEAN)
    assert len(tiny.rows(folder)) == 8
    return folder


@pytest.mark.slow
def test_a_stop_leaves_out_the_validation_after_it(
    images: Path, tmp_path: Path, whole: Path, crash_at: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "part"
    step = CompressionModule.training_step

    def terminated(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:  # the third step, after which a validation is due
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(CompressionModule, "training_step", terminated)
        train(images, part, MEAN)
    assert not any("val/loss" in row for row in tiny.rows(part)) and len(tiny.rows(part)) == 3
    for crash_at["step"] in (3, 4):
        with pytest.raises(Crash):
            train(images, part, MEAN)
    crash_at["step"] = None
    train(images, part, MEAN)
    assert_equal_but_for(3, part, whole)


@pytest.mark.slow
def test_a_stop_cuts_a_validation(
    images: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "part"
    step, validated = CompressionModule.validation_step, []

    def terminated(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> Any:
        validated.append(self.global_step)
        if validated in ([3], [3, 3, 6]):  # at the first image
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CompressionModule, "validation_step", terminated)
    for steps in ([3, 2], [6, 4]):
        with pytest.raises(SystemExit):
            train(images, part, MEAN)
        paths = [part / "checkpoints" / name for name in ("last.ckpt", "last-1.ckpt")]
        assert [torch.load(path, weights_only=True)["global_step"] for path in paths] == steps
        assert not any("val/loss" in row for row in tiny.rows(part))
        assert "validation at step" not in capsys.readouterr().out
        assert not (part / "checkpoints" / "best.ckpt").exists()
    # The run ends with a validation of its result, whatever was left out.
    train(images, part, MEAN)
    assert_equal_but_for(3, part, whole)


def test_a_stop_cuts_the_validation_of_the_end_result(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, killed_by = CompressionModule.validation_step, [signal.SIGTERM, signal.SIGTERM]

    def terminated(self: CompressionModule, batch: torch.Tensor, batch_idx: int) -> Any:
        if killed_by and not self.trainer.interrupted:
            os.kill(os.getpid(), killed_by.pop())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CompressionModule, "validation_step", terminated)
    for _ in range(2):  # in the training, and after it
        with pytest.raises(SystemExit, match="143"):
            train(images, tmp_path / "run", "trainer.max_steps=1")
        assert not (tmp_path / "run" / "done.json").exists()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(images, tmp_path / "run", "trainer.max_steps=1")
    assert (tmp_path / "run" / "done.json").exists()
    assert [row["step"] for row in tiny.rows(tmp_path / "run") if "val/loss" in row] == ["0"]


@pytest.mark.slow
def test_a_checkpoint_without_steps_left_says_how_to_train_further(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    last = f"ckpt_path={whole / 'checkpoints' / 'last.ckpt'}"
    train(images, whole, "trainer.max_steps=2")
    train(images, whole, "trainer.max_steps=2")
    assert f"(resume=never trains it again, {last} trainer.max_steps=MORE goes on with it)" in capsys.readouterr().out
    for steps in (1, 2):
        with pytest.raises(UserError, match=f"has trained 2 steps, and trainer.max_steps={steps}: there is nothing to"):
            train(images, other, last, f"trainer.max_steps={steps}")
    assert not other.exists()
    for said in ("continuing after step 2", "finished before"):
        train(images, whole, last, "trainer.max_steps=3")
        assert said in capsys.readouterr().out
    assert torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


def test_noise_and_crops_differ_between_steps_and_processes() -> None:
    from jointiq.training.callbacks.step_seed import step_seed

    seeds = [step_seed(seed, step, process) for seed in (0, 1) for step in (0, 1, 7) for process in (0, 1)]
    assert len(set(seeds)) == 12 and all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(0, 7, 1) == seeds[5]


def test_a_damaged_checkpoint_is_passed_over(
    images: Path, tmp_path: Path, whole: Path, crash_at: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    crash_at["step"] = 5
    with pytest.raises(Crash):
        train(images, folder, MEAN)
    last = folder / "checkpoints" / "last.ckpt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    crash_at["step"], crash_at["seen"] = None, []
    capsys.readouterr()
    train(images, folder, MEAN)
    assert crash_at["seen"] == [2, 3, 4, 5]
    assert "warning: " in (output := capsys.readouterr().out) and "is damaged" in output
    assert tiny.rows(folder) == tiny.rows(whole)


def test_every_kind_of_damage_is_seen(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path, "trainer.max_steps=1")
    last = tmp_path / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    assert resume.newest(tmp_path).checkpoint == str(last)
    for damaged in (b"", whole[:1000], whole[:-1], b"no checkpoint"):
        last.write_bytes(damaged)
        start = resume.newest(tmp_path)
        assert start.checkpoint is None and len(start.warnings) == 1


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run.quiet()
    train(images, folder, "trainer.max_steps=1")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A finished run, of one's own."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def config(images: Path, folder: Path) -> Callable[..., DictConfig]:
    """``config(*more)`` is the configuration of the run in ``folder``, but for what is typed."""
    texts = (*tiny.overrides(images), "trainer.max_steps=1", f"paths.run_dir={folder}")
    return lambda *more: tiny.config(*texts, *more)


Config = Callable[..., DictConfig]


def test_a_finished_run_is_finished(folder: Path, config: Config) -> None:
    assert resume.find_start(folder, config()).finished
    assert resume.find_start(folder, config("trainer.devices=2", "logger=wandb")).finished


@pytest.mark.parametrize("changed", ["seed=1", "init_from=x.ckpt", "resume=never"])
def test_another_run_starts_anew(folder: Path, config: Config, changed: str) -> None:
    assert resume.find_start(folder, config(changed)) == resume.Start()


def test_a_checkpoint_that_is_given_is_where_a_run_starts(folder: Path, config: Config) -> None:
    assert resume.find_start(folder, config("ckpt_path=x.ckpt")).checkpoint == "x.ckpt"


def test_an_unknown_value_of_resume_is_refused(folder: Path, config: Config) -> None:
    with pytest.raises(ConfigError, match="one of auto, never"):
        resume.find_start(folder, config("resume=maybe"))


def test_a_cut_run_goes_on(folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "done.json").unlink()
    last = str(folder / "checkpoints" / "last.ckpt")
    assert resume.find_start(folder, config()) == resume.Start(last)
    # A cluster's job that is queued again goes on even so.
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resume.find_start(folder, config("resume=never")) == resume.Start(last)


def test_a_run_that_has_begun_at_a_checkpoint_goes_on_like_any_other(
    folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "done.json").unlink()
    last, begun = str(folder / "checkpoints" / "last.ckpt"), "ckpt_path=x.ckpt"
    run_folder.describe(folder, config(begun))
    assert resume.find_start(folder, config(begun)) == resume.Start(last)
    assert resume.find_start(folder, config(begun, "resume=never")) == resume.Start("x.ckpt")
    assert resume.find_start(folder, config("ckpt_path=y.ckpt")) == resume.Start("y.ckpt")
    run_folder.mark_done(folder, 6)
    assert resume.find_start(folder, config(begun)).finished
    (folder / "done.json").unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resume.find_start(folder, config(begun, "resume=never")) == resume.Start(last)


def test_a_run_that_goes_back_in_its_own_folder_goes_back(folder: Path, config: Config) -> None:
    earlier = f"ckpt_path={folder}/checkpoints/last-1.ckpt"
    run_folder.describe(folder, config(earlier))
    assert resume.find_start(folder, config(earlier)) == resume.Start(earlier.partition("=")[2])


def test_a_run_of_an_earlier_version_is_found(folder: Path, config: Config) -> None:
    """It has its lock inside, and lacks what has been added to the configuration."""
    (folder / ".lock").touch()
    saved = OmegaConf.load(folder / "config.yaml")
    del saved["optimized_metric"], saved["callbacks"]["progress"]["folder"]
    saved["callbacks"]["speed"] = {"_target_": "jointiq.training.callbacks.checkpoint.Speed"}
    OmegaConf.save(saved, folder / "config.yaml")
    assert resume.find_start(folder, config()).finished
    (folder / "done.json").unlink()
    assert resume.find_start(folder, config()).checkpoint == str(folder / "checkpoints" / "last.ckpt")


def test_a_checkpoint_is_read_once(
    images: Path, tmp_path: Path, crash_at: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_at["step"] = 3
    with pytest.raises(Crash):
        train(images, tmp_path)
    crash_at["step"] = None
    read: list[str] = []
    loaded: list[Any] = []
    read_bytes, load = Path.read_bytes, torch.load

    def watched(path: Path) -> bytes:
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    monkeypatch.setattr(torch, "load", lambda file, **options: loaded.append(file) or load(file, **options))
    train(images, tmp_path)
    assert read.count("last.ckpt") == 1 and len(loaded) == 1


def test_of_two_equal_commands_one_trains(
    images: Path,
    trained: Path,
    tmp_path: Path,
    crash_at: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second one waits for the first, and finds its run finished."""
    folder, begun, second_waits = tmp_path / "run", threading.Event(), threading.Event()

    def first() -> None:
        with locked(folder):
            begun.set()
            assert second_waits.wait(60)
            shutil.copytree(trained, folder)

    other = threading.Thread(target=first)
    other.start()
    begun.wait()
    monkeypatch.setattr(lock, "print", lambda *told, **how: second_waits.set(), raising=False)
    train(images, folder, "trainer.max_steps=1")
    other.join()
    assert crash_at["seen"] == [] and "finished before" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_of_two_equal_processes_one_trains(
    images: Path, tmp_path: Path, crash_at: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import sys; from jointiq.training import run; from tests.training import tiny\n"
        "run.train(tiny.config(*sys.argv[1:]))"
    )
    folder = tmp_path / "run"
    texts = (*tiny.overrides(images), "trainer.max_steps=1", f"paths.run_dir={folder}")
    other = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, *texts], cwd=tiny.ROOT)
    while not is_locked(folder) and other.poll() is None:
        time.sleep(0.01)
    train(images, folder, "trainer.max_steps=1")
    assert other.wait() == 0
    assert crash_at["seen"] == [] and "finished before" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills(images: Path, tmp_path: Path) -> None:
    """kill -9 at random moments, and the same command again each time."""
    pace = ("callbacks.checkpoint.every_steps=5", "trainer.val_check_interval=15")
    command = [sys.executable, "-W", "ignore", "-m", "src.train", *tiny.overrides(images, 120), *pace]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, f"paths.run_dir={folder}"], cwd=tiny.ROOT, env=environment)

    whole, part = tmp_path / "whole", tmp_path / "part"
    assert start(whole).wait() == 0
    rng = random.Random(0)
    last = part / "checkpoints" / "last.ckpt"
    for _ in range(10):
        process = start(part)
        before = last.stat().st_mtime if last.is_file() else 0.0
        while process.poll() is None and (not last.is_file() or last.stat().st_mtime == before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(part).wait() == 0
    assert tiny.rows(part) == tiny.rows(whole)
    assert all(map(torch.equal, tiny.weights(part).values(), tiny.weights(whole).values()))
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last-1.ckpt", "last.ckpt"]
