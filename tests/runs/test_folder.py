"""A run's saved configuration: complete and movable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from jointiq.errors import UserError
from jointiq.files import atomic_path
from jointiq.runs import folder as run_folder
from jointiq.runs.name import run_key
from tests.training import tiny


def config(*overrides: str) -> DictConfig:
    return tiny.config("+experiment=jointiq", "scale=demo", *overrides)


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
    assert run_key(run_folder.read_config(saved)) == run_key(cfg)
    assert run_folder.holds(saved, cfg)
    assert run_folder.holds(saved, config("lmbda=0.1", "init_from=x.ckpt", "logger=wandb"))
    assert not run_folder.holds(saved, config("lmbda=0.1", "seed=1"))
    assert not run_folder.holds(saved.parent, cfg)
    assert run_key(config("init_from=x.ckpt")) != run_key(config())


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.yaml that src.train wrote"):
        run_folder.read_config(tmp_path)
    for text in ("a: 1", "[1]", "a: [", ""):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="no config.yaml that src.train wrote"):
            run_folder.read_config(tmp_path)


def test_a_new_start_takes_the_mark_of_completion_away(saved: Path) -> None:
    run_folder.mark_done(saved, 5)
    cfg = run_folder.read_config(saved)
    cfg.ckpt_path = str(saved / "checkpoints" / "last.ckpt")
    assert OmegaConf.create((saved / "done.json").read_text()).step == 5
    assert run_folder.prepare(saved, cfg, cfg.ckpt_path) is None
    assert not (saved / "done.json").exists()


def test_a_start_removes_what_a_killed_process_was_writing(saved: Path) -> None:
    last = saved / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    with pytest.raises(KeyboardInterrupt), atomic_path(last) as temporary:
        last.touch()
        os.link(temporary, temporary.with_name(f"{temporary.stem}x.ckpt"))
        raise KeyboardInterrupt
    assert len(list(last.parent.iterdir())) == 2
    run_folder.prepare(saved, config(), str(last))
    assert list(last.parent.iterdir()) == [last]


def test_stages_are_in_the_order_of_their_numbers_without_those_moved_aside(tmp_path: Path) -> None:
    for name in ("10_crop", "2_c2f_coarse", "1_joint", "10_crop.old1", "2_c2f_coarse.old12", "checkpoints", "x_1"):
        (tmp_path / name).mkdir()
    (tmp_path / "3_file").write_text("")
    assert [path.name for path in run_folder.stage_folders(tmp_path)] == ["1_joint", "2_c2f_coarse", "10_crop"]
    assert run_folder.stage_folders(tmp_path / "none") == []


METRICS = "step,train/loss,val/loss,val/psnr\n0,3.5,,\n0,,3.25,30.0\n1,3.0,,\n1,,2.75,31.5\n2,2.5,,\n"


def test_the_hours_of_a_training(tmp_path: Path) -> None:
    assert run_folder.training_hours(tmp_path) is None
    (tmp_path / "metrics.csv").write_text("step,steps_per_second,val/loss\n0,,\n35,0.01,\n99,,3\n135,0.05,\n")
    # 36 steps of 100 seconds, 100 of 20.
    assert run_folder.training_hours(tmp_path) == pytest.approx(1 + 2000 / 3600)


def test_the_last_validation_of_a_run_and_of_a_chain(tmp_path: Path) -> None:
    assert run_folder.last_validation(tmp_path) == {}
    (tmp_path / "metrics.csv").write_text(METRICS.partition("0,,")[0])
    assert run_folder.last_validation(tmp_path) == {}
    (tmp_path / "metrics.csv").write_text(METRICS)
    assert run_folder.last_validation(tmp_path) == {"val/loss": 2.75, "val/psnr": 31.5}
    (tmp_path / "2_crop").mkdir()
    (tmp_path / "2_crop" / "metrics.csv").write_text(METRICS.replace("2.75", "1.75"))
    assert run_folder.last_validation(tmp_path)["val/loss"] == 1.75


def test_only_what_is_written_as_in_the_folder_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that reads like the folder's path by chance is not one."""
    monkeypatch.chdir(tmp_path)
    run_folder.describe(Path("jointiq"), config())
    text = Path("jointiq/config.yaml").read_text()
    assert "name: jointiq\n" in text and "path: ${paths.run_dir}/checkpoints/last.ckpt" in text
