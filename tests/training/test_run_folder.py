"""A run's saved configuration: complete, movable, repeatable."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.train import CONFIGS
from src.training import run_folder


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=["+experiment=jointiq", "scale=demo", *overrides])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    cfg = config("lmbda=0.1")
    cfg.paths.run_dir = str(tmp_path / "run")
    run_folder.describe(tmp_path / "run", cfg)
    return tmp_path / "run"


def test_everything_is_resolved_but_where_the_run_is(saved: Path) -> None:
    text = (saved / "config.yaml").read_text()
    assert "${" in text and text.replace("${paths.run_dir}", "").count("${") == 0
    cfg = run_folder.read_config(saved)
    assert (cfg.model.N, cfg.optim.lr, cfg.lmbda, cfg.paths.run_dir) == (32, 1e-3, 0.1, str(saved))
    assert cfg.callbacks.checkpoint.path == f"{saved}/checkpoints/last.ckpt"


def test_the_key_of_a_saved_run_is_that_of_the_run(saved: Path) -> None:
    cfg = config("lmbda=0.1")
    assert run_folder.run_key(run_folder.read_config(saved)) == run_folder.run_key(cfg)
    assert run_folder.holds(saved, cfg)
    assert run_folder.holds(saved, config("lmbda=0.1", "init_from=x.ckpt", "logger=wandb"))
    assert not run_folder.holds(saved, config("lmbda=0.1", "seed=1"))
    assert not run_folder.holds(saved.parent, cfg)
    assert run_folder.run_key(config("init_from=x.ckpt")) != run_folder.run_key(config())


def test_again_goes_beside_the_run(saved: Path) -> None:
    cfg = run_folder.again(saved, ["trainer.max_steps=7", "data.flips=false", "paths.results='a b'"])
    assert cfg.paths.run_dir == f"{saved}.rerun" and cfg.callbacks.checkpoint.path.startswith(f"{saved}.rerun/")
    assert (cfg.trainer.max_steps, cfg.data.flips, cfg.paths.results) == (7, False, "a b")


def test_again_starts_a_continued_run_anew(saved: Path) -> None:
    for where, expected in ((saved, None), (saved.parent / "other", str(saved.parent / "other" / "last.ckpt"))):
        cfg = run_folder.read_config(saved)
        cfg.ckpt_path = str(where / "last.ckpt")
        run_folder.describe(saved, cfg)
        assert run_folder.again(saved, []).ckpt_path == expected


@pytest.mark.parametrize("override", ["trainer=gpu", "model.Q=3", "+new=1", "~seed", "seed=1,2", "seed=["])
def test_again_takes_single_values_only(saved: Path, override: str) -> None:
    with pytest.raises(UserError):
        run_folder.again(saved, [override])


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.yaml that src.train wrote"):
        run_folder.again(tmp_path, [])
    for text in ("a: 1", "[1]", "a: [", ""):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="no config.yaml that src.train wrote"):
            run_folder.again(tmp_path, [])


@pytest.mark.parametrize("path", ["a/b-c.d", "with space", "it's", "back\\slash", "key=value", "[x]", "ä,b"])
def test_printed_commands_survive_shell_and_hydra(path: str) -> None:
    words = shlex.split(run_folder.command(rerun=path))
    assert words[:3] == ["python", "-m", "src.train"]
    assert OverridesParser.create().parse_override(words[3]).value() == path


def test_a_new_start_takes_the_mark_of_completion_away(saved: Path) -> None:
    run_folder.mark_done(saved, 5)
    cfg = run_folder.read_config(saved)
    cfg.ckpt_path = str(saved / "checkpoints" / "last.ckpt")
    assert OmegaConf.create((saved / "done.json").read_text()).step == 5
    assert run_folder.prepare(saved, cfg, cfg.ckpt_path) is None
    assert not (saved / "done.json").exists()
