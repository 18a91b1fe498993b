"""A run repeated from its saved configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.errors import UserError
from src.training import run_folder
from src.training.rerun import again
from tests.training import tiny


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    cfg = tiny.config("+experiment=jointiq", "scale=demo", "lmbda=0.1")
    cfg.paths.run_dir = str(tmp_path / "run")
    run_folder.describe(tmp_path / "run", cfg)
    return tmp_path / "run"


def test_again_goes_beside_the_run(saved: Path) -> None:
    cfg = again(saved, ["trainer.max_steps=7", "data.flips=false", "paths.results='a b'"])
    assert cfg.paths.run_dir == f"{saved}.rerun" and cfg.callbacks.checkpoint.path.startswith(f"{saved}.rerun/")
    assert (cfg.trainer.max_steps, cfg.data.flips, cfg.paths.results) == (7, False, "a b")


def test_again_starts_a_continued_run_anew(saved: Path) -> None:
    for where, expected in ((saved, None), (saved.parent / "other", str(saved.parent / "other" / "last.ckpt"))):
        cfg = run_folder.read_config(saved)
        cfg.ckpt_path = str(where / "last.ckpt")
        run_folder.describe(saved, cfg)
        assert again(saved, []).ckpt_path == expected


@pytest.mark.parametrize("override", ["trainer=gpu", "model.Q=3", "+new=1", "~seed", "seed=1,2", "seed=["])
def test_again_takes_single_values_only(saved: Path, override: str) -> None:
    with pytest.raises(UserError):
        again(saved, [override])
