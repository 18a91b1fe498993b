"""``python -m src.report`` on a small study."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jointiq.commands.report import main
from jointiq.errors import ConfigError
from tests.evaluation.report.study import make_study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"))


def test_page_plots_and_points(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out" / "page.html"
    assert main([str(results), "--images", str(results.parent / "images"), "--output", str(page)]) == 0
    assert f"{page}: {page.stat().st_size / 1e6:.1f} MB" in capsys.readouterr().out
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "page-ms-ssim.pdf", "page-ms-ssim.png", "page-ms-ssim.svg", "page-psnr.pdf", "page-psnr.png", "page-psnr.svg",
        "page.csv", "page.html",
    ]  # fmt: skip
    with Image.open(page.parent / "page-psnr.png") as plot:
        assert plot.width > 1000
    with (page.parent / "page.csv").open() as stream:
        assert [row["kind"] for row in csv.DictReader(stream)] == ["model"] * 4 + ["anchor"] * 8
    assert page.read_text().endswith("</html>\n")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--output", "page.txt"], "a path ending in .html"),
        (["--max-mb", "0"], "a number above 0"),
        (["--max-mb", "nan"], "a number above 0"),
        (["--max-side", "8"], "from 16 up"),
    ],
)
def test_values_that_cannot_be_used(results: Path, option: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main([str(results), *option])


def test_a_folder_without_results_is_one_line_and_exit_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "src.report", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: no RD files in")
    assert "Traceback" not in done.stderr
