"""The run that closes a sweep in W&B, read back from the files that it leaves offline."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from jointiq.commands.bdrate import main
from jointiq.errors import UserError
from jointiq.evaluation.rd import RDCurve
from jointiq.tracking.bdrate import log_comparison
from tests.wandb_files import read, table


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def write(path: Path, factor: float) -> None:
    rates = (0.1, 0.2, 0.4, 0.8)
    results = {
        "bpp": [factor * rate for rate in rates],
        "psnr-rgb": [40 + 6 * math.log2(rate) for rate in rates],
        "ms-ssim-rgb": [1 - 0.01 / rate for rate in rates],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"name": path.stem, "results": results}))


def test_tables_points_and_plots_close_a_group(tmp_path: Path) -> None:
    write(tmp_path / "anchors" / "bpg.json", 1.0)
    write(tmp_path / "jointiq.json", 0.9)
    write(tmp_path / "ablation_no_gmm.json", 0.99)
    assert main(["--results", str(tmp_path), "--wandb", "sweep7", "--project", "mine"]) == 0

    (run,) = read(tmp_path)
    assert run.finished and (run.group, run.job, run.name) == ("sweep7", "bdrate", "bdrate sweep7")
    assert run.config["anchors"] == ["bpg"] and run.config["method"] == "pchip"
    (row,) = run.rows
    rates = table(tmp_path, row["bdrate/rates.path"])
    by_pair = {(rate["test"], rate["metric"]): rate["percent"] for rate in rates}
    assert by_pair == pytest.approx(
        {
            ("jointiq", "psnr"): -10.0,
            ("jointiq", "ms-ssim"): -10.0,
            ("ablation_no_gmm", "psnr"): -1.0,
            ("ablation_no_gmm", "ms-ssim"): -1.0,
        },
        abs=1e-6,
    )
    assert run.summary["bdrate/psnr/jointiq vs bpg"] == pytest.approx(-10.0)
    ours = {line["model"]: (line["paper"], line["ours"]) for line in table(tmp_path, row["bdrate/ablations.path"])}
    assert ours["without GMM"] == pytest.approx((2.76, 10.0)) and ours["without GC"] == (0.92, None)
    points = table(tmp_path, row["bdrate/curve_table.path"])
    assert len(points) == 12 and {(point["curve"], point["kind"]) for point in points} == {
        ("jointiq", "model"),
        ("ablation_no_gmm", "model"),
        ("bpg", "anchor"),
    }
    first = next(point for point in points if point["curve"] == "bpg")
    assert (first["bpp"], first["ms_ssim"], first["ms_ssim_db"]) == pytest.approx((0.1, 0.9, 10.0))
    pictures = {path.name.split("_0_")[0] for path in tmp_path.glob("wandb/*/files/media/images/bdrate/*.png")}
    assert pictures == {"rd_psnr", "rd_ms-ssim"}


def test_without_bd_rates_there_are_points_all_the_same(tmp_path: Path) -> None:
    curve = RDCurve("few", {"bpp": (0.1, 0.2), "psnr-rgb": (30.0, 32.0)})
    log_comparison("g", tmp_path, None, [curve], [])
    (run,) = read(tmp_path)
    (row,) = run.rows
    assert run.finished and "bdrate/rates.path" not in row
    points = table(tmp_path, row["bdrate/curve_table.path"])
    assert [(point["bpp"], point["ms_ssim"]) for point in points] == [(0.1, None), (0.2, None)]


def test_two_files_are_no_sweep(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.json", 1.0)
    with pytest.raises(UserError, match="--wandb"):
        main([str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--wandb", "g"])
