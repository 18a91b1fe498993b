"""The staged recipe: a chain of runs, skipped, continued and repeated stage by stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose

from jointiq.coding.load import load_model
from jointiq.files import write_text
from jointiq.runs import folder as run_folder
from jointiq.runs import resume
from jointiq.runs.rerun import again
from jointiq.sweeps import stages
from jointiq.training.run import train
from tests.training import tiny
from tests.training.tiny import weights
from tests.training.typed import TINY, error_line, last, losses, own, rows, run, start

FULL = ("+experiment=jointiq_full", *TINY[1:5], *TINY[6:])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


def changed_parts(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    return {key.split(".")[1] for key in new if key not in old or not old[key].equal(new[key])}


@pytest.fixture
def stages_in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a chain's stages without a process each; gives the names of the folders that were trained."""
    trained: list[str] = []

    def run_here(overrides: list[str], config_dirs: list[str]) -> int:
        cfg = compose("train", overrides=list(overrides))
        if cfg.rerun is not None:
            cfg = again(cfg.rerun, [text for text in overrides if not text.startswith("rerun=")])
        trained.append(Path(cfg.paths.run_dir).name)
        try:
            train(cfg)
        except KeyboardInterrupt:
            return 130
        return 0

    monkeypatch.setattr(stages, "run_process", run_here)
    return trained


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
        (("stage=enhancer",), "init_from='auto'"),
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


def test_a_chain_that_is_queued_again_takes_no_earlier_stage_for_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``resume=never`` in a cluster's job that is cut after its first stage."""
    by = ["first"]

    def stand_in(overrides: list[str], config_dirs: list[str]) -> int:
        cfg = compose("train", overrides=list(overrides))
        folder = Path(cfg.paths.run_dir)
        start = resume.find_start(folder, cfg)
        if not start.finished:
            if by[0] == "cut" and folder.name != "1_joint":
                return 143
            run_folder.prepare(folder, cfg, start.checkpoint)
            write_text(last(folder), by[0])
            run_folder.mark_done(folder, 1)
        return 0

    monkeypatch.setattr(stages, "run_process", stand_in)
    command = (*FULL, f"paths.run_dir={tmp_path / 'full'}")
    assert run(monkeypatch, *command) == 0
    by[0] = "cut"
    assert run(monkeypatch, *command, "resume=never") == 143
    by[0] = "again"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run(monkeypatch, *command, "resume=never") == 0
    texts = {path.parents[1].name: path.read_text() for path in (tmp_path / "full").glob("*/checkpoints/last.ckpt")}
    names = ["1_joint", "2_enhancer", "3_crop"]
    assert [texts.pop(name) for name in names] == ["cut", "again", "again"]
    assert texts == {f"{name}.old1": "first" for name in names}


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
