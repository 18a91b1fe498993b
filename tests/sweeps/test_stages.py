"""The staged recipe: a chain of runs, skipped, continued and repeated stage by stage."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from jointiq.coding.load import load_model
from jointiq.configs import compose
from jointiq.errors import UserError
from jointiq.evaluation.rd import read_rd
from jointiq.files import write_text
from jointiq.runs import folder as run_folder
from jointiq.runs import resume
from jointiq.runs.resume import config_to_train
from jointiq.sweeps.stages import TrainStage, run_chain
from jointiq.training.run import train
from tests.marks import slow
from tests.training import tiny
from tests.training.tiny import weights
from tests.training.typed import TINY, error_line, last, losses, own, rows, run, start

NAMES = ["1_joint", "2_enhancer", "3_crop"]
FULL = ("+experiment=jointiq_full", *TINY[1:5], *TINY[6:])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


def changed_parts(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    changed = (key for key in new if key not in old or not old[key].equal(new[key]))
    return {key.removeprefix("net.").removeprefix("entropy_model.").split(".")[0] for key in changed}


class Chain:
    """Trains chains in this process, instead of a process for each stage; ``trained`` are the names of the stages."""

    def __init__(self, images: Path) -> None:
        self.common = (*FULL, *own(images)[len(TINY) :])
        self.trained: list[str] = []

    def run(self, folder: Path, *more: str) -> Path:
        self.trained.clear()
        return self._run((*self.common, f"paths.run_dir={folder}", *more))

    def rerun(self, folder: Path) -> Path:
        self.trained.clear()
        return self._run((f"rerun={folder}",))

    def _run(self, overrides: Sequence[str]) -> Path:
        return run_chain(config_to_train(compose("train", overrides), overrides), overrides, train_stage=self._stage)

    def _stage(self, overrides: Sequence[str], config_dirs: Sequence[str]) -> int:
        cfg = config_to_train(compose("train", overrides), overrides)
        self.trained.append(Path(cfg.paths.run_dir).name)
        train(cfg)
        return 0


@pytest.fixture
def chain(images: Path) -> Chain:
    return Chain(images)


@pytest.fixture(scope="module")
def first_time(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Chain, Path, str]:
    """A chain that has been trained: what trained it, its folder, and what it said."""
    chain, said = Chain(images), io.StringIO()
    with contextlib.redirect_stdout(said):
        folder = chain.run(tmp_path_factory.mktemp("trained") / "full")
    return chain, folder, said.getvalue()


@pytest.fixture
def trained(first_time: tuple[Chain, Path, str]) -> Path:
    return first_time[1]


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The same, of one's own."""
    shutil.copytree(trained, tmp_path / "full")
    for path in tmp_path.glob("full/**/config.yaml"):  # what it says of its place
        path.write_text(path.read_text().replace(str(trained), str(tmp_path / "full")))
    return tmp_path / "full"


def assert_same(one: Path, other: Path) -> None:
    """Two stages have had the same losses, and have the same weights."""
    assert losses(one) == losses(other)
    assert all(map(torch.equal, weights(one).values(), weights(other).values()))


def test_each_stage_starts_from_the_one_before(first_time: tuple[Chain, Path, str]) -> None:
    chain, _, output = first_time
    assert chain.trained == NAMES
    assert "weights of the compression network taken; the enhancer grdn" in output and "all weights taken" in output


def test_each_stage_trains_its_part(trained: Path) -> None:
    first, second, third = (trained / name for name in NAMES)
    assert load_model(last(first)).config["enhancer"]["kernels"] == 8
    assert load_model(last(second)).config["enhancer"]["kernels"] == 12
    assert changed_parts(first, second) == {"enhancer", "_extra_state"}
    assert changed_parts(second, third) >= {"g_a", "g_s", "h_a", "h_s", "z_prior", "estimator", "enhancer"}
    assert last(trained).read_bytes() == last(third).read_bytes()
    assert set(rows(second)[0]) & {"train/bpp", "train/loss"} == {"train/loss"}


def test_finished_stages_are_skipped(chain: Chain, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain.run(folder)
    assert chain.trained == []
    assert capsys.readouterr().out.count("finished, skipped") == 3


@pytest.mark.slow
def test_the_last_stage_is_measured(chain: Chain, folder: Path, images: Path) -> None:
    """Of a chain that is finished, too: then nothing is trained."""
    before = weights(folder)
    chain.run(folder, f"data.test_dir={images / 'val'}")
    assert chain.trained == NAMES[2:] and all(map(torch.equal, before.values(), weights(folder).values()))
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("rd.json"))
    assert found == ["3_crop/rd.json", "rd.json"]
    curve = read_rd(folder / "rd.json")
    assert (curve.name, len(curve.images)) == ("jointiq_full crop", 2)
    chain.run(folder, f"data.test_dir={images / 'val'}")
    assert chain.trained == []


def test_a_cut_stage_is_continued_and_later_ones_are_trained_anew(
    chain: Chain, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second, third = folder / NAMES[1], folder / NAMES[2]
    (second / "done.json").unlink()
    chain.run(folder)
    assert chain.trained == NAMES[1:]
    assert "2_enhancer: continued" in capsys.readouterr().out
    assert not second.with_name("2_enhancer.old1").exists() and third.with_name("3_crop.old1").exists()


@pytest.mark.slow
def test_a_chain_is_repeated_from_its_folder(chain: Chain, folder: Path) -> None:
    chain.rerun(folder)
    assert chain.trained == NAMES
    for name in NAMES:
        assert_same(folder.with_name("full.rerun") / name, folder / name)


@pytest.mark.slow
def test_a_model_may_have_had_the_first_stage_elsewhere(chain: Chain, trained: Path, tmp_path: Path) -> None:
    chain.run(tmp_path / "short", f"init_from={last(trained / NAMES[0])}")
    assert chain.trained == NAMES[1:]
    assert losses(tmp_path / "short" / NAMES[2]) == losses(trained / NAMES[2])


def test_one_stage_alone_is_the_same_as_in_the_chain(chain: Chain, trained: Path, tmp_path: Path) -> None:
    alone = ("stage=enhancer", f"init_from={last(trained / NAMES[0])}", f"paths.run_dir={tmp_path / 'alone'}")
    train(compose("train", (*chain.common, *alone)))
    assert losses(tmp_path / "alone") == losses(trained / NAMES[1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        slow(("stage=enhancer",), "init_from='auto'"),
        slow(("stage=crop", "init_from=/no/such.ckpt"), "init_from: /no/such.ckpt"),
        slow(("init_from=/no/such.ckpt",), "init_from=/no/such.ckpt: no such file"),
        slow(("enhancer=none",), "enhancer.name=None"),
        (("scale.stages.crop=40",), "stage.crop=40"),  # of the last two stages, found before the first
        slow(("ckpt_path=x.ckpt",), "ckpt_path='x.ckpt'"),
    ],
)
def test_mistakes_with_stages_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    message: str,
) -> None:
    assert run(monkeypatch, *FULL, f"paths.run_dir={tmp_path / 'full'}", *overrides) == 2
    assert message in error_line(capsys)
    assert not (tmp_path / "full").exists()


@pytest.mark.parametrize(
    ("code", "expected", "told"),
    [
        (2, UserError, "stage 1 of 3, 1_joint failed with exit code 2"),
        slow(130, KeyboardInterrupt, None),
        slow(143, SystemExit, "143"),
    ],
)
def test_a_failed_or_stopped_stage_ends_the_chain(
    tmp_path: Path, code: int, expected: type[BaseException], told: str | None
) -> None:
    overrides = (*FULL, f"paths.run_dir={tmp_path / 'full'}")
    with pytest.raises(expected, match=told):
        run_chain(compose("train", overrides), overrides, train_stage=lambda overrides, config_dirs: code)
    assert not last(tmp_path / "full").exists()


@pytest.mark.slow
def test_a_chain_that_is_queued_again_takes_no_earlier_stage_for_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``resume=never`` in a cluster's job that is cut after its first stage."""

    def stand_in(by: str) -> TrainStage:
        def train_stage(overrides: Sequence[str], config_dirs: Sequence[str]) -> int:
            cfg = compose("train", overrides)
            folder = Path(cfg.paths.run_dir)
            start = resume.find_start(folder, cfg)
            if not start.finished:
                if by == "cut" and folder.name != "1_joint":
                    return 143
                run_folder.prepare(folder, cfg, start.checkpoint)
                write_text(last(folder), by)
                run_folder.mark_done(folder, 1)
            return 0

        return train_stage

    command = (*FULL, f"paths.run_dir={tmp_path / 'full'}")
    anew = (*command, "resume=never")
    run_chain(compose("train", command), command, train_stage=stand_in("first"))
    with pytest.raises(SystemExit, match="143"):
        run_chain(compose("train", anew), anew, train_stage=stand_in("cut"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run_chain(compose("train", anew), anew, train_stage=stand_in("again"))
    texts = {path.parents[1].name: path.read_text() for path in (tmp_path / "full").glob("*/checkpoints/last.ckpt")}
    assert [texts.pop(name) for name in NAMES] == ["cut", "again", "again"]
    assert texts == {f"{name}.old1": "first" for name in NAMES}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_staged_recipe_at_demo_scale(tmp_path: Path) -> None:
    """On the embedded photographs, from random weights, so that there is something to learn.

    So few pictures and steps do not tell what a stage gains, and processors differ in it; what it may cost is bounded.
    """
    process = start(
        "+experiment=jointiq_full", "scale=demo", "trainer=cpu", "init_from=null", f"paths.run_dir={tmp_path}"
    )
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    loss = [[float(row["val/loss"]) for row in rows(tmp_path / name) if row.get("val/loss")][-1] for name in NAMES]
    assert loss[0] < 0.6 and loss[1] < 1.1 * loss[0] and loss[2] < 1.1 * min(loss[:2])
    model = load_model(last(tmp_path))
    assert model.config["enhancer"]["kernels"] == 12
