"""``python -m src.bdrate`` as typed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from jointiq.commands.bdrate import main
from jointiq.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
RATES = (0.1, 0.2, 0.4, 0.8)


def write(path: Path, factor: float = 1.0, points: int = 4, ms_ssim: bool = True) -> str:
    results = {
        "bpp": [factor * rate for rate in RATES[:points]],
        "psnr-rgb": [40 + 6 * math.log2(rate) for rate in RATES[:points]],
    }
    if ms_ssim:
        results["ms-ssim-rgb"] = [1 - 0.01 / rate for rate in RATES[:points]]
    path.write_text(json.dumps({"name": path.stem, "results": results}))
    return str(path)


def test_table_of_a_known_shift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchor = write(tmp_path / "anchor.json")
    assert main([anchor, write(tmp_path / "better.json", 0.9), write(tmp_path / "worse.json", 1.1)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" anchor  ")]
    cells = [line[:5] for line in lines[1:]]
    assert cells == [
        ["anchor", "better", "psnr", "pchip", "-10.00"],
        ["anchor", "better", "ms-ssim", "pchip", "-10.00"],
        ["anchor", "worse", "psnr", "pchip", "+10.00"],
        ["anchor", "worse", "ms-ssim", "pchip", "+10.00"],
    ]
    low, high = 40 + 6 * math.log2(0.1), 40 + 6 * math.log2(0.8)
    assert lines[1][5:] == [f"{low:.2f}", "to", f"{high:.2f}", "100", "%", "4", "/", "4"]


def test_a_folder_of_files_is_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "anchors").mkdir()
    for name in ("jpeg", "webp"):
        write(tmp_path / "anchors" / f"{name}.json")
    assert main([str(tmp_path / "anchors"), str(write(tmp_path / "ours.json")), "--metric", "psnr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if " psnr " in line] == [["jpeg", "webp"], ["jpeg", "ours"]]


def test_one_bad_curve_does_not_end_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchor, short = write(tmp_path / "anchor.json"), write(tmp_path / "short.json", points=2)
    assert main([anchor, short, write(tmp_path / "better.json", 0.9)]) == 0
    told = capsys.readouterr()
    assert "-10.00" in told.out and told.err.count("left out: short ") == 1


def test_metric_and_method_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchor, test = write(tmp_path / "anchor.json"), write(tmp_path / "test.json", 0.9)
    assert main([anchor, test, "--metric", "ms-ssim", "--method", "akima"]) == 0
    out = capsys.readouterr().out
    assert "akima" in out and "ms-ssim" in out and "psnr" not in out


def test_a_metric_only_one_has_is_told_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchor, test = write(tmp_path / "anchor.json"), write(tmp_path / "test.json", ms_ssim=False)
    assert main([anchor, test]) == 0
    told = capsys.readouterr()
    assert 'left out: test has no "ms-ssim-rgb"' in told.err
    assert "psnr" in told.out and "ms-ssim" not in told.out
    with pytest.raises(DataError, match="ms-ssim-rgb"):
        main([anchor, test, "--metric", "ms-ssim"])


@pytest.mark.parametrize(("points", "message"), [(3, "test has 3 points; BD-rate needs at least 4"), (0, "no numbers")])
def test_user_errors_are_one_line_and_exit_2(tmp_path: Path, points: int, message: str) -> None:
    command = [sys.executable, "-m", "src.bdrate", write(tmp_path / "anchor.json")]
    done = subprocess.run(
        [*command, write(tmp_path / "test.json", points=points)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line]
    assert errors[-1].startswith("error: ") and message in errors[-1]
    assert "Traceback" not in done.stderr


def test_one_metric_is_chosen_of_files_alone(tmp_path):
    with pytest.raises(ConfigError, match="with ANCHOR TEST alone"):
        main(["--results", str(tmp_path), "--metric", "psnr"])
