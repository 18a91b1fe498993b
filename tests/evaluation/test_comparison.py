"""The tables of a results folder."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from jointiq.coding import shipped
from jointiq.commands.bdrate import main
from jointiq.errors import DataError, UserError
from jointiq.evaluation.comparison import CurveFile, compare_all, compare_pairs, find_curves, tables
from jointiq.evaluation.rd import RDCurve
from jointiq.studies import kept
from jointiq.studies.plan import EXPERIMENTS

#: Where the project's own results lie.
KEPT = (shipped.WEIGHTS, EXPERIMENTS)
RATES = (0.1, 0.2, 0.4, 0.8)


def write(path: Path, factor: float = 1.0, points: int = 4, shift: float = 0.0, images: str | None = None) -> Path:
    """A curve whose rate is ``factor`` times that of the others at equal quality."""
    rates = RATES[:points]
    document = {
        "name": path.stem,
        "results": {
            "bpp": [factor * rate for rate in rates],
            "psnr-rgb": [40 + shift + 6 * math.log2(rate) for rate in rates],
            "ms-ssim-rgb": [1 - 0.01 / rate / 10**shift for rate in rates],
        },
    }
    if images:
        document["images"] = [{"image": images, "width": 8, "height": 8}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    write(folder / "anchors" / "jpeg.json")
    write(folder / "study" / "jointiq.json", 0.5)
    write(folder / "study" / "ablation_no_grdn.json", 0.55)
    write(folder / "study" / "ablation_no_gmm.json", 0.51)
    (folder / "study" / "done.json").write_text('{"steps": 3}')
    (folder / "study" / "status.json").write_text('{"step": 3, "bpp": 0.2, "seconds_left": null}')
    write(folder / ".hidden" / "old.json", 9.0)
    return folder


def test_models_against_anchors_and_table_2(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(results)]) == 0
    with (results / "bdrate.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["table"] == "anchors", row["test"], row["metric"]): float(row["percent"]) for row in rows}
    assert len(found) == len(rows) == 10
    for metric in ("psnr", "ms-ssim"):
        assert found[True, "jointiq", metric] == pytest.approx(-50)
        assert found[True, "ablation_no_gmm", metric] == pytest.approx(-49)
        assert found[False, "ablation_no_grdn", metric] == pytest.approx(10)
        assert found[False, "ablation_no_gmm", metric] == pytest.approx(2)
    lines = (results / "bdrate.md").read_text().splitlines()
    low, high = 40 + 6 * math.log2(0.1), 40 + 6 * math.log2(0.8)
    details = f"{low:.2f} to {high:.2f} | 100 % | 4 / 4"
    start = lines.index(next(line for line in lines if line.startswith("| Models")))
    assert lines[start + 2 : start + 6] == [
        f"| without GRDN | 8.61 | 10.00 | {details} | 10.00 |",
        "| without GC | 0.92 | – | – | – | – | – |",
        "| without GC/MPRM | 3.71 | – | – | – | – | – |",
        f"| without GMM | 2.76 | 2.00 | {details} | 2.00 |",
    ]
    assert f"| jpeg | jointiq | -50.00 | {details} |" in lines
    document = json.loads((results / "bdrate.json").read_text())
    assert document["method"] == "pchip" and len(document["rates"]) == 10 and document["left_out"] == []
    out = capsys.readouterr().out
    assert "Table 2" in out and "PSNR, pchip" in out and "MS-SSIM in dB, pchip" in out


def test_a_small_overlap_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anchor, far = write(tmp_path / "anchors" / "jpeg.json"), write(tmp_path / "far.json", 0.5, shift=15)
    assert main([str(anchor), str(write(tmp_path / "near.json", 0.5)), "--metric", "psnr"]) == 0
    told = capsys.readouterr().out
    assert "-50.00 " in told and "*" not in told
    assert main([str(anchor), str(far), "--metric", "psnr"]) == 0
    assert "* the curves share less than 25% of their range of quality" in capsys.readouterr().out
    assert main(["--results", str(tmp_path)]) == 0
    assert "* the curves share less than 25%" in capsys.readouterr().out
    assert re.search(r"far & \$-\$\d\d\.\d\d\* & ", (tmp_path / "bdrate.tex").read_text())


def test_method_output_and_anchors_are_chosen(results: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "published" / "vtm.json", 0.25)
    arguments = ["--results", str(results), "--anchors", str(other.parent), "--method", "akima"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    document = json.loads((tmp_path / "out" / "bdrate.json").read_text())
    of_anchors = [rate for rate in document["rates"] if rate["table"] == "anchors"]
    assert {(rate["anchor"], rate["method"]) for rate in of_anchors} == {("vtm", "akima")}
    assert not (results / "bdrate.json").exists()


def test_pairs_without_a_number_are_told_once_a_reason(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(results / "anchors" / "webp.json", images="one.png")
    write(results / "short.json", points=3)
    write(results / "far.json", shift=60)
    for name in ("a", "b", "c", "d"):
        write(results / f"{name}.json", images="two.png")
    assert main(["--results", str(results)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line]
    assert sorted(told) == [
        "left out: 1 curve with too few rates for a BD-rate: short",
        "left out: 2 pairs with a curve that does not rise: far against jpeg (ms-ssim), far against webp (ms-ssim)",
        "left out: 2 pairs without a common range of quality: far against jpeg (psnr), far against webp (psnr)",
        "left out: 4 pairs measured on different images: a against webp, b against webp, c against webp, and 1 more",
    ]
    lines = (results / "bdrate.md").read_text().splitlines()
    assert "- short against jpeg, psnr: short has 3 points; BD-rate needs at least 4" in lines
    assert len([line for line in lines if line.startswith("- ")]) == 16


def test_a_metric_that_fails_alone_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((results / "study" / "jointiq.json").read_text())
    del document["results"]["ms-ssim-rgb"]
    (results / "plain.json").write_text(json.dumps({**document, "name": "plain"}))
    assert main(["--results", str(results)]) == 0
    assert "left out: 1 pair without ms-ssim: plain against jpeg (ms-ssim)" in capsys.readouterr().err


def test_curves_of_different_images_are_not_compared(tmp_path: Path) -> None:
    anchor = write(tmp_path / "anchors" / "a.json", images="one.png")
    with pytest.raises(DataError, match="b against a, psnr: they were measured on different images"):
        compare_all(find_curves([write(tmp_path / "b.json", images="two.png")]), find_curves([anchor]))
    same = find_curves([write(tmp_path / "c.json", images="one.png")])
    assert len(compare_all(same, find_curves([anchor])).rates) == 2


@pytest.mark.parametrize(("points", "shift", "message"), [(3, 0, "has 3 points"), (4, 60, "do not overlap")])
def test_no_number_at_all_is_an_error(tmp_path: Path, points: int, shift: float, message: str) -> None:
    write(tmp_path / "anchors" / "a.json")
    write(tmp_path / "b.json", points=points, shift=shift)
    with pytest.raises(DataError, match=f"no BD-rate can be computed; .*{message}"):
        main(["--results", str(tmp_path)])
    assert not (tmp_path / "bdrate.md").exists()


def test_without_results_the_projects_own_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for kept in KEPT for path in kept.rglob("*")}
    assert main([]) == 0
    out = capsys.readouterr().out
    cells = [line.split() for line in out.splitlines()]
    assert ["jointiq-mse", "15", "0.1699", "28.76", "11.51"] in cells
    assert ["JPEG", "4:2:0", "–", "-53.86"] in [line[:4] for line in cells]
    assert ["JPEG", "2000", "-45.48", "-14.83"] in [line[:4] for line in cells]
    assert ["without", "GMM", "2.76", "+8.17", "[+6.57,", "+9.81]"] in [line[:6] for line in cells]
    assert ["without", "GRDN", "8.61", "+23.83", "[+17.95,", "+30.00]"] in [line[:6] for line in cells]
    assert "results/: nothing of yours to compare yet (0 RD files of models, 0 of anchors)" in out
    assert list(tmp_path.iterdir()) == [] and "written" not in out
    assert {path: path.stat().st_mtime_ns for kept in KEPT for path in kept.rglob("*")} == before


def test_own_results_come_after_the_projects_own(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    assert main([]) == 0
    told = capsys.readouterr()
    assert (
        told.out.index("The models of weights/") < told.out.index("jpeg") < told.out.index("written: results/bdrate.md")
    )
    assert json.loads((results / "bdrate.json").read_text())["rates"] and "nothing of yours" not in told.out


def test_own_results_that_cannot_be_compared_are_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results" / "anchors" / "a.json")
    write(tmp_path / "results" / "one_point.json", points=1)
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    told = capsys.readouterr()
    assert told.err == "left out: 1 curve with too few rates for a BD-rate: one_point\n"
    assert "nothing of yours to compare yet (1 RD files of models, 1 of anchors)" in told.out
    assert not (tmp_path / "results" / "bdrate.md").exists()
    with pytest.raises(DataError, match="no BD-rate can be computed"):
        main(["--results", "results"])


def test_nothing_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="none: no such file or folder"):
        main(["--anchors", "none"])
    with pytest.raises(DataError, match="results: no such file or folder"):
        main(["--results", "results"])
    write(tmp_path / "results" / "model.json")
    with pytest.raises(DataError, match="nothing to compare: 1 RD files of models, 0 of anchors"):
        main(["--results", "results"])
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    monkeypatch.setattr(kept, "EXPERIMENTS", tmp_path)
    with pytest.raises(DataError, match="results/: no curves that can be compared"):
        main([])


@pytest.mark.parametrize("name", ["jointiq", "a_model_of_quite_a_long_name", "ablation_no_gc_mprm ms_ssim"])
def test_tables_fit_a_terminal(name: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(results / "anchors" / f"{name}.json")
    comparison = compare_all(*(find_curves([results], anchors=anchors) for anchors in (False, True)))
    for table in [*tables(comparison), *kept.kept_tables()]:
        shown = io.StringIO()
        table.print(Console(file=shown, width=80, force_terminal=True, no_color=True, color_system=None))
        lines = shown.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        numbers = [cell for row in table.rows for cell in row[table.left :]]
        assert all(any(number in line for line in lines) for number in numbers)


def test_files_and_folders_are_not_mixed(results: Path) -> None:
    with pytest.raises(UserError, match="either ANCHOR.json"):
        main([str(results / "anchors" / "jpeg.json"), "--results", str(results)])
    with pytest.raises(UserError, match="either ANCHOR.json"):
        main([str(results / "anchors" / "jpeg.json")])


def test_a_model_named_among_the_anchors_is_judged(results: Path, tmp_path: Path) -> None:
    folder = results / "study"
    arguments = ["--results", str(folder / "jointiq.json"), "--anchors", str(folder), "--output", str(tmp_path)]
    assert main(arguments) == 0
    rates = json.loads((tmp_path / "bdrate.json").read_text())["rates"]
    assert {(rate["test"], rate["anchor"]) for rate in rates} == {
        ("jointiq", "ablation_no_gmm"),
        ("jointiq", "ablation_no_grdn"),
    }


def test_curves_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "a" / "same.json")
    write(tmp_path / "b" / "same.json")
    names = [file.curve.name for file in find_curves([tmp_path])]
    assert names == ["same (a)", "same (b)"]


def test_a_model_is_compared_with_the_one_it_is_most_like(tmp_path: Path) -> None:
    """A short training with another short one; where more than one setting differs, the names say all of them."""

    def curve(experiment: str, typed: tuple[str, ...], name: str, factor: float) -> CurveFile:
        values = {
            "bpp": tuple(factor * rate for rate in RATES),
            "psnr-rgb": tuple(40 + 6 * math.log2(r) for r in RATES),
        }
        about = {"experiment": experiment, "typed": typed}
        return CurveFile(tmp_path / f"{name}.json", RDCurve(name, values, about=about), tmp_path / name)

    short = "trainer.max_steps=150"
    models = [
        curve("jointiq", (), "jointiq", 1.0),
        curve("jointiq", (short,), f"jointiq {short}", 2.0),
        curve("jointiq", ("enhancer=mine", short), "jointiq enhancer=mine", 2.2),
        curve("lee2019", ("enhancer=mine",), "lee2019", 1.5),
    ]
    between = compare_pairs(models, []).between
    assert {(rate.anchor, rate.test): round(rate.percent) for rate in between} == {
        ("jointiq", f"jointiq {short}"): 100,
        (f"jointiq {short}", "jointiq enhancer=mine"): 10,
        ("jointiq", "lee2019 enhancer=mine"): 50,
    }
