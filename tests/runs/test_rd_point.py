"""The RD point that a finished run leaves: from real files, logged, made good after a stop, not a part of its name."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from jointiq.coding.image_codec import encode_image
from jointiq.coding.load import load_model
from jointiq.data.images import read_image, write_png
from jointiq.errors import DataError
from jointiq.evaluation import models
from jointiq.evaluation.rd import read_rd
from jointiq.runs import folder as run_folder
from jointiq.runs import rd_point
from jointiq.runs.name import run_key
from tests.marks import slow
from tests.training import tiny
from tests.training.typed import error_line, last, own, rows, run


def write_tests(folder: Path, *names: str) -> None:
    generator = torch.Generator().manual_seed(1)
    for name in names:
        write_png(folder / name, torch.randint(0, 256, (40, 50, 3), generator=generator, dtype=torch.uint8).numpy())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    write_tests(folder / "test", "e.png", "f.png")
    return folder


def typed(images: Path, run_dir: Path, *more: str) -> tuple[str, ...]:
    return (*own(images), "trainer.max_steps=1", f"data.test_dir={images / 'test'}", f"paths.run_dir={run_dir}", *more)


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not measured."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run(monkeypatch, *typed(images, folder, "test=false")) == 0
    assert not (folder / "rd.json").exists()
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_run_measures_itself(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run(monkeypatch, *typed(images, folder, "seed=7")) == 0
    curve = read_rd(folder / "rd.json")
    assert (len(curve), curve.name) == (1, "jointiq")
    assert [(row["image"], row["lmbda"], row["seed"]) for row in curve.images] == [
        ("e.png", 0.03, 7),
        ("f.png", 0.03, 7),
    ]
    data = encode_image(load_model(last(folder)), read_image(images / "test" / "e.png")).data
    assert curve.images[0]["bytes"] == len(data) and curve.images[0]["latents_equal"]
    (logged,) = (row for row in rows(folder) if row.get("test/bpp"))
    assert float(logged["test/bpp"]) == curve.bpp[0] and int(logged["step"]) == 1
    assert float(logged["test/psnr"]) == curve.results["psnr-rgb"][0]
    said = capsys.readouterr()
    assert (
        f"test: {curve.bpp[0]:.4f} bpp, PSNR {curve.results['psnr-rgb'][0]:.2f} dB, real files: {folder}\n" in said.out
    )
    assert said.err == ""  # no bar where there is no terminal
    assert not (folder / ".rows").exists() and not list(folder.rglob("*.jiq"))


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), slow(signal.SIGTERM, 143), slow(signal.SIGHUP, 129)]
)
def test_a_stop_while_it_is_measured_is_made_good_without_training(
    number: int,
    exit_code: int,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, measured = tmp_path / "run", []
    code = models.evaluate_image

    def stopped(model: object, checkpoint: str, name: str, image: object, *refinement: object) -> object:
        measured.append(name)
        if len(measured) == 2:
            os.kill(os.getpid(), number)
        return code(model, checkpoint, name, image, *refinement)  # type: ignore[arg-type]

    monkeypatch.setattr(models, "evaluate_image", stopped)
    assert run(monkeypatch, *typed(images, folder)) == exit_code
    assert capsys.readouterr().out.endswith("stopped while the run is measured: the same command goes on\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (folder / "done.json").is_file() and not (folder / "rd.json").exists()
    before = last(folder).stat().st_mtime_ns
    assert run(monkeypatch, *typed(images, folder)) == 0
    assert measured == ["e.png", "f.png", "f.png"]  # the first is taken from before
    assert len(read_rd(folder / "rd.json").images) == 2 and last(folder).stat().st_mtime_ns == before
    assert [row["test/bpp"] for row in rows(folder) if row.get("test/bpp")] and rows(folder)[0]["train/loss"]
    assert "trained at step" not in capsys.readouterr().out
    assert run(monkeypatch, *typed(images, folder)) == 0
    assert len(measured) == 3


def test_other_test_images_are_measured_and_nothing_is_trained(
    images: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tests(tmp_path / "other", "g.png")
    assert run(monkeypatch, *typed(images, folder)) == 0
    assert run(monkeypatch, *typed(images, folder, f"data.test_dir={tmp_path / 'other'}")) == 0
    assert [row["image"] for row in read_rd(folder / "rd.json").images] == ["g.png"]
    told = capsys.readouterr().out
    assert "trained at step" not in told and told.count("finished before") == 2


def test_without_test_images_it_says_so_and_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *own(images), "trainer.max_steps=1", f"paths.run_dir={tmp_path / 'run'}") == 0
    assert "no test images (data.test_dir=null): the run is not measured\n" in capsys.readouterr().out
    assert (tmp_path / "run" / "done.json").is_file() and not (tmp_path / "run" / "rd.json").exists()


def test_a_wrong_folder_is_refused_before_the_training(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *typed(images, tmp_path / "run", "data.test_dir=/no/such")) == 2
    assert "/no/such: no such folder" in error_line(capsys)
    assert run(monkeypatch, *typed(images, tmp_path / "run", "test=maybe")) == 2
    assert "test='maybe' is not allowed" in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_has_no_point_any_more(images: Path, folder: Path) -> None:
    cfg = tiny.config(*typed(images, folder))
    (folder / "rd.json").write_text("{}")
    run_folder.prepare(folder, cfg, str(last(folder)))
    assert not (folder / "rd.json").exists()


def config(*more: str) -> DictConfig:
    return tiny.config("+experiment=jointiq", "data=folder", "data.train_dir=a", "data.val_dir=b", "scale=paper", *more)


def test_measuring_is_no_part_of_a_runs_name(tmp_path: Path) -> None:
    assert run_key(config()) == run_key(config("test=false", "data.test_dir=c"))
    with pytest.raises(DataError):
        rd_point.is_missing(tmp_path, config("data.test_dir=/no/such"))


def test_runs_of_a_curve_have_one_key_and_others_another(tmp_path: Path) -> None:
    """N, M, steps and learning rate come with lambda at scale=paper; what is typed is another curve."""
    rates = ("lmbda=0.5", "lmbda=0.06", "lmbda=0.01", "seed=3", "test=false")
    keys = {rd_point.key_of_curve(config(rate)) for rate in rates}
    assert len(keys) == 1
    others = ("model.N=64", "trainer.max_steps=7", "enhancer=vdsr", "data.train_dir=c", "init_from=x.ckpt")
    assert len(keys | {rd_point.key_of_curve(config(other)) for other in others}) == 1 + len(others)


def test_starts_from_one_curve_make_one_curve(tmp_path: Path) -> None:
    starts = []
    for number, rate in enumerate(("lmbda=0.5", "lmbda=0.06", "trainer.max_steps=7")):
        run_folder.describe(tmp_path / str(number), config(rate))
        starts.append(f"init_from={last(tmp_path / str(number))}")
    first, second, other = (rd_point.key_of_curve(config("stage=enhancer", start)) for start in starts)
    assert first == second != other


def test_a_run_of_all_rates_leaves_a_curve(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run(monkeypatch, *typed(images, folder, "model.rates=continuous", "model.scan=quarters")) == 0
    curve = read_rd(folder / "rd.json")
    assert len(curve) == len(models.QUALITIES)
    lambdas = {row["quality"]: row["lmbda"] for row in curve.images}
    assert sorted(lambdas) == sorted(models.QUALITIES)
    assert lambdas[1] == pytest.approx(0.6) and lambdas[100] == pytest.approx(0.008)
    said = capsys.readouterr().out
    assert said.count("\ntest: q") == len(models.QUALITIES) and "\ntest: q1, " in said and "\ntest: q100, " in said
    assert ": all rates, " in said and "lmbda" not in said
    validated = rows(folder)[-1].keys() | set().union(*(row.keys() for row in rows(folder)))
    assert {"val/bpp", "val/bpp_q1", "val/psnr_q50", "val/loss_q100"} <= validated
