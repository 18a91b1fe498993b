"""Curves of a sweep's last validations, from the folders of its runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jointiq.errors import DataError
from jointiq.evaluation.rd import read_rd
from jointiq.runs.folder import mark_done
from jointiq.sweeps.curves import close_sweep, finished_runs, write_curves

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
            f"experiment_name: {name}\nlmbda: {lmbda}\nstage: {{name: {stage[2:] or 'joint'}}}\npaths: {{}}\n"
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
