"""Curves of a sweep's last validations, from the folders of its runs."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from jointiq.commands.bdrate import main as bdrate
from jointiq.errors import DataError
from jointiq.evaluation.comparison import find_curves
from jointiq.evaluation.rd import RDCurve, read_rd, write_rd
from jointiq.runs.folder import mark_done
from jointiq.sweeps.curves import close_sweep, finished_runs, too_few_rates, write_curves
from tests.evaluation.test_curves import point
from tests.training import tiny

CLOSING = "closing: jointiq.tracking.bdrate.close_sweep"
METRICS = "step,val/bpp,val/psnr,val/ms_ssim,train/loss\n9,{0},{1},{2},\n10,,,,0.5\n19,{3},{4},{5},\n"


class Sweep:
    """Folders as a sweep leaves them."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "sweep"
        self.folder = folder
        (self.record / "jobs").mkdir(parents=True)

    def add(self, name: str, lmbda: float, last: tuple[float, ...] | None, stage: str = "", **more: str) -> None:
        number = len(list((self.record / "jobs").iterdir()))
        top = self.folder / f"run{number}"
        run = top / stage if stage else top
        run.mkdir(parents=True)
        logger = more.get("logger", "csv: {}")
        run.joinpath("config.yaml").write_text(
            f"experiment_name: {name}\nlmbda: {lmbda}\nstage: {{name: {stage[2:] or 'joint'}}}\n"
            f"paths: {{run_dir: {run}}}\nseed: 0\nckpt_path: null\ninit_from: null\nmodel: {{name: jointiq}}\n"
            "rates: {}\nenhancer: {}\noptim: {}\ndata: {}\ntrainer: {}\ncallbacks: {}\n"
            f"distortion: {{name: {more.get('distortion', 'mse')}}}\nlogger: {{{logger}}}\n"
        )
        if last is not None:
            run.joinpath("metrics.csv").write_text(METRICS.format(9, 9, 0.1, *last))
            mark_done(top, 20)
        job = {"overrides": [], "folder": str(top), "code": 0}
        (self.record / "jobs" / f"{number}.json").write_text(json.dumps(job))


def test_points_of_a_curve_are_its_lambdas(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.add("jointiq", 0.03, (0.8, 34.0, 0.98))
    sweep.add("jointiq", 0.5, (0.1, 28.0, 0.90))
    sweep.add("jointiq", 0.5, (0.3, 30.0, 0.92))  # another seed: a mean with the one before
    sweep.add("jointiq", 0.12, None)  # not finished
    sweep.add("jointiq", 0.5, (0.2, 27.0, 0.95), distortion="ms_ssim")
    sweep.add("jointiq_full", 0.5, (0.15, 31.0, 0.93), stage="3_crop")
    shutil.copytree(*(tmp_path / "run5" / name for name in ("3_crop", "3_crop.old1")))  # an earlier one, moved aside
    folders = finished_runs(sweep.record)
    assert folders[-1].name == "3_crop"
    folder = write_curves(sweep.record, folders)
    assert sorted(path.name for path in folder.glob("*.json")) == [
        "jointiq.json",
        "jointiq_full_crop.json",
        "jointiq_ms_ssim.json",
    ]
    curve = read_rd(folder / "jointiq.json")
    assert curve.parameter == ("0.5", "0.03")
    assert curve.bpp == pytest.approx((0.2, 0.8)) and curve.results["psnr-rgb"] == pytest.approx((29.0, 34.0))
    assert curve.results["ms-ssim-rgb"] == pytest.approx((0.91, 0.98))


def test_a_sweep_without_wandb_is_left_alone(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.add("jointiq", 0.5, (0.1, 28.0, 0.9))
    close_sweep(sweep.record)
    assert sorted(path.name for path in sweep.record.iterdir()) == ["jobs"]


def test_nothing_validated_is_an_error(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.add("jointiq", 0.5, None)
    with pytest.raises(DataError, match="no finished run"):
        write_curves(sweep.record, finished_runs(sweep.record))


def test_a_problem_is_told_and_the_sweep_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep(tmp_path)
    settings = f"wandb: {{project: p, group: g, offline: true, anchors: {tmp_path / 'none'}, {CLOSING}}}"
    sweep.add("jointiq", 0.5, (0.1, 28.0, 0.9), logger=settings)
    close_sweep(sweep.record)
    assert "no such file or folder of RD files" in capsys.readouterr().err


LAMBDAS = {0.5: 0.1, 0.23: 0.2, 0.12: 0.4, 0.06: 0.8}


def measured(name: str, lmbda: float, factor: float, **more: Any) -> RDCurve:
    """What a run of an experiment leaves, at ``factor`` times the rate of others."""
    rate = LAMBDAS[lmbda]
    curve = point(lmbda, rate, name=name, key=name, images=1, **more)
    (row,) = ({**row, "psnr": 40 + 6 * math.log2(rate), "bpp": factor * rate} for row in curve.images)
    results = {"bpp": (row["bpp"],), "psnr-rgb": (row["psnr"],)}
    return replace(curve, images=(row,), results=results, about={**curve.about, "experiment": name.split()[0]})


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep whose runs were measured, below a folder ``results`` with an anchor."""
    sweep = Sweep(tmp_path / "results")
    curves = (("jointiq", 1.0), ("ablation_no_gmm", 1.1), ("jointiq enhancer=vdsr", 1.2))
    for name, factor in curves:
        for lmbda in LAMBDAS:
            number = len(list((sweep.record / "jobs").iterdir()))
            sweep.add(name.split()[0], lmbda, (9.0, 9.0, 0.1))
            write_rd(
                sweep.folder / f"run{number}" / "rd.json", measured(name, lmbda, factor, typed=tuple(name.split()[1:]))
            )
    anchor = {key: tuple(measured("x", lmbda, 2.0).results[key][0] for lmbda in LAMBDAS) for key in ("bpp", "psnr-rgb")}
    write_rd(sweep.folder / "anchors" / "jpeg.json", RDCurve("JPEG", anchor))
    return sweep


def test_a_sweep_has_curves_a_plot_and_bd_rates(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    close_sweep(sweep.record, sweep.folder)
    names = {"ablation_no_gmm", "jointiq", "jointiq_enhancer_vdsr"}
    assert {path.stem for path in (sweep.record / "curves").glob("*.json")} == names
    assert read_rd(sweep.record / "curves" / "jointiq.json").parameter == ("0.5", "0.23", "0.12", "0.06")
    assert (sweep.record / "curves.png").stat().st_size > 10_000 and (sweep.record / "curves.svg").is_file()
    rates = json.loads((sweep.record / "bdrate.json").read_text())["rates"]
    found = {(rate["table"].split()[0], rate["anchor"], rate["test"]): round(rate["percent"]) for rate in rates}
    assert found == {
        ("anchors", "JPEG", "jointiq"): -50,
        ("anchors", "JPEG", "ablation_no_gmm"): -45,
        ("anchors", "JPEG", "jointiq enhancer=vdsr"): -40,
        ("models", "jointiq", "jointiq enhancer=vdsr"): 20,
        ("ablations", "jointiq", "ablation_no_gmm"): 10,
    }
    told = capsys.readouterr()
    assert "Table 2" in told.out and "BD-rate between models by PSNR" in told.out
    assert f"written: {sweep.record / 'curves.png'}" in told.out


def test_bdrate_finds_the_curves_of_runs_and_sweeps_once(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    close_sweep(sweep.record, sweep.folder)
    shutil.copytree(sweep.folder / "run0", sweep.folder / "run0.old1")
    write_rd(sweep.folder / "alone" / "rd.json", measured("lonely", 0.5, 1.0))
    names = [file.curve.name for file in find_curves([sweep.folder], anchors=False)]
    assert sorted(names) == ["ablation_no_gmm", "jointiq", "jointiq enhancer=vdsr", "lonely"]
    before = json.loads((sweep.record / "bdrate.json").read_text())["rates"]
    monkeypatch.chdir(sweep.folder.parent)
    capsys.readouterr()
    assert bdrate([]) == 0
    after = json.loads(Path("results/bdrate.json").read_text())["rates"]
    both = [{(rate["anchor"], rate["test"]): rate["percent"] for rate in rates} for rates in (before, after)]
    assert both[0] == both[1] and len(before) == len(after) == 5
    assert "left out: 1 curve with too few rates for a BD-rate: lonely\n" in capsys.readouterr().err


def test_folders_are_compared_like_files(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    close_sweep(sweep.record, sweep.folder)
    for number in range(8):
        parent = sweep.folder / ("first" if number < 4 else "second")
        parent.mkdir(exist_ok=True)
        (sweep.folder / f"run{number}").rename(parent / f"run{number}")
    capsys.readouterr()
    assert bdrate([str(sweep.folder / "second"), str(sweep.folder / "first"), "--metric", "psnr"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ablation_no_gmm", "jointiq", "psnr", "pchip", "-9.09"] in [line[:5] for line in lines]
    assert bdrate([str(sweep.record), "--metric", "psnr"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["jointiq", "ablation_no_gmm", "psnr", "pchip", "+10.00"] in [line[:5] for line in lines]


def test_a_sweep_of_few_rates_says_so_before() -> None:
    def jobs(*texts: str) -> list[DictConfig]:
        return [tiny.config("+experiment=jointiq", "scale=demo", *text.split()) for text in texts]

    four = jobs("lmbda=0.5", "lmbda=0.23", "lmbda=0.12", "lmbda=0.06")
    assert too_few_rates(four) is None
    line = too_few_rates([*four, *jobs("lmbda=0.5 seed=1", "lmbda=0.5 enhancer=vdsr", "lmbda=0.06 enhancer=vdsr")])
    assert line is not None and line.startswith("curves of 2 values of lmbda: too few rates for a BD-rate")
