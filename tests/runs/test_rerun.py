"""A run repeated from its saved configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from jointiq.errors import UserError
from jointiq.runs import folder as run_folder
from jointiq.runs.resume import config_for_rerun
from tests.training import tiny
from tests.training.tiny import weights
from tests.training.typed import error_line, losses, own, run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    cfg = tiny.config("+experiment=jointiq", "scale=demo", "lmbda=0.1")
    cfg.paths.run_dir = str(tmp_path / "run")
    run_folder.describe(tmp_path / "run", cfg)
    return tmp_path / "run"


def test_a_rerun_goes_beside_the_run(saved: Path) -> None:
    cfg = config_for_rerun(saved, ["trainer.max_steps=7", "data.flips=false", "paths.results='a b'"])
    assert cfg.paths.run_dir == f"{saved}.rerun" and cfg.callbacks.checkpoint.path.startswith(f"{saved}.rerun/")
    assert (cfg.trainer.max_steps, cfg.data.flips, cfg.paths.results) == (7, False, "a b")


def test_a_rerun_starts_a_continued_run_anew(saved: Path) -> None:
    for where, expected in ((saved, None), (saved.parent / "other", str(saved.parent / "other" / "last.ckpt"))):
        cfg = run_folder.read_config(saved)
        cfg.ckpt_path = str(where / "last.ckpt")
        run_folder.describe(saved, cfg)
        assert config_for_rerun(saved, []).ckpt_path == expected


def test_a_run_of_an_earlier_version_gets_the_keys_that_it_lacks(saved: Path) -> None:
    cfg = OmegaConf.load(saved / "config.yaml")
    for key in ("resume", "optimized_metric"):
        del cfg[key]
    OmegaConf.save(cfg, saved / "config.yaml")
    repeated = config_for_rerun(saved, [])
    assert (repeated.resume, repeated.optimized_metric) == ("auto", "val/loss")


def test_a_run_of_an_earlier_version_gets_todays_callbacks_and_loggers(saved: Path) -> None:
    cfg = OmegaConf.load(saved / "config.yaml")
    cfg.callbacks = {
        "checkpoint": {"_target_": "src.training.callbacks.LastCheckpoint", "path": "${paths.run_dir}/last.ckpt"},
        "speed": {"_target_": "src.training.callbacks.Speed"},
        "mine": {"_target_": "mine.Callback"},
    }
    cfg.logger = {"csv": {"_target_": "src.training.loggers.CsvLog", "folder": "${paths.run_dir}"}}
    OmegaConf.save(cfg, saved / "config.yaml")
    repeated, today = config_for_rerun(saved, []), tiny.config()
    assert set(repeated.callbacks) == {"mine", *today.callbacks} and list(repeated.logger) == ["csv"]
    assert repeated.callbacks.checkpoint._target_ == today.callbacks.checkpoint._target_
    assert repeated.callbacks.checkpoint.path.startswith(f"{saved}.rerun/")
    assert repeated.logger.csv == {"_target_": today.logger.csv._target_, "folder": f"{saved}.rerun"}


@pytest.mark.parametrize("override", ["trainer=gpu", "model.Q=3", "+new=1", "~seed", "seed=1,2", "seed=["])
def test_a_rerun_takes_single_values_only(saved: Path, override: str) -> None:
    with pytest.raises(UserError):
        config_for_rerun(saved, [override])


OPTIONS = ("trainer.max_steps=3", "distortion=ms_ssim", "optim.ema_decay=0.5")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_losses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(monkeypatch, *own(images), *OPTIONS, f"seed={seed}", f"paths.run_dir={tmp_path / name}") == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    assert all(map(torch.equal, weights(tmp_path / "a").values(), weights(tmp_path / "b").values()))


def test_the_folder_gives_the_same_losses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *own(images), *OPTIONS, "seed=3", f"paths.run_dir={tmp_path / 'a'}") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if f"rerun={tmp_path / 'a'}" in line)
    command = line.partition(": ")[2].split()
    assert command[:3] == ["python", "-m", "src.train"]
    assert run(monkeypatch, *command[3:]) == 0
    repeated = tmp_path / "a.rerun"
    assert losses(repeated) == losses(tmp_path / "a") and len(losses(repeated)) == 3
    assert all(map(torch.equal, weights(tmp_path / "a").values(), weights(repeated).values()))
    assert (tmp_path / "a" / "done.json").is_file()

    assert run(monkeypatch, f"rerun={repeated}", "trainer.max_steps=1", f"paths.run_dir={tmp_path / 'short'}") == 0
    assert losses(tmp_path / "short") == {0: losses(repeated)[0]}


def test_mistakes_with_rerun_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, f"rerun={tmp_path}") == 2
    assert f"rerun={tmp_path}: no config.yaml" in error_line(capsys)
