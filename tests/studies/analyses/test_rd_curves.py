"""RD curves, costs and run times of a study whose trainings take no time."""

from __future__ import annotations

import json

import pytest
import yaml
from PIL import Image

from jointiq.errors import ConfigError
from jointiq.evaluation.comparison import find_curves
from jointiq.evaluation.rd import read_rd
from jointiq.studies import training
from jointiq.studies.plan import read_study
from jointiq.studies.report import BEGIN, END
from jointiq.studies.runner import Options, run_study
from tests.studies.pretended import PretendedJobs

STUDY = {
    "title": "Curves",
    "source": "a paper",
    "shows": "What a mixture is worth.",
    "settings": ["scale=demo", "model.N=6", "model.M=8"],
    "measure": ["test"],
    "lmbda": [0.9, 0.5, 0.2, 0.05],
    "values": [
        {"name": "mixture", "paper": 3.63, "unit": "%", "test": "lee2019_gmm", "anchor": "lee2019", "sense": "less"},
        {"name": "against JPEG", "paper": 50, "unit": "%", "test": "lee2019", "anchor": ["bpg", "jpeg_420"]},
    ],
    "runs": {
        "lee2019": {"label": "Lee 2019", "overrides": ["+experiment=lee2019"]},
        "lee2019_gmm": {"label": "with GMM", "overrides": ["+experiment=lee2019_gmm"]},
    },
    "analyses": {"rd_curves": {"codecs": ["jpeg"], "all_against": "jpeg_420"}, "costs": {}},
    "scales": {"pilot": {"note": "Tiny."}},
}


@pytest.fixture
def place(tmp_path, picture, monkeypatch):
    def run(**changes) -> dict:
        folder = tmp_path / "experiments" / "mine"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        (folder / "README.md").write_text(f"# Mine\n\n{BEGIN}\n{END}\n")
        (tmp_path / "kodak").mkdir(exist_ok=True)
        for seed in (0, 1):
            Image.fromarray(picture(64, 80, seed)).save(tmp_path / "kodak" / f"{seed}.png")
        monkeypatch.setattr(training, "run_jobs", PretendedJobs())
        options = Options(test=(str(tmp_path / "kodak"),), results=tmp_path / "results")
        assert run_study(read_study("mine", tmp_path / "experiments"), "pilot", options) == 0
        return json.loads((folder / "results" / "pilot" / "results.json").read_text())

    return tmp_path, run


def test_curves_are_drawn_compared_and_left_for_others_to_read(place) -> None:
    folder, run = place
    document = run()
    rows = {row[0]: row for row in document["table"]["rows"]}
    assert set(rows) == {"mixture", "against JPEG"} and rows["mixture"][1] == "3.63 %"
    files = {path.stem: read_rd(path) for path in (folder / "results").rglob("curves/*/*.json")}
    assert set(files) == {"lee2019", "lee2019_gmm"}
    assert all(len(curve) == 4 and len(curve.images) == 8 for curve in files.values())
    assert {path.suffix for path in (folder / "experiments/mine/results/pilot").glob("rd_psnr*")} == {".png", ".svg"}
    # As `make bdrate` looks for them.
    places = [folder / "results"]
    assert {file.curve.name for file in find_curves(places, anchors=False)} == {"Lee 2019", "with GMM"}
    assert {file.path.stem for file in find_curves(places, anchors=True)} >= {"jpeg_420"}
    report = (folder / "experiments/mine/results/pilot/report.md").read_text()
    assert "MACs a pixel" in report and "with GMM" in report


@pytest.mark.slow
def test_bd_rates_within_a_range_of_rates(place) -> None:
    _, run = place
    whole = run()
    rates = sorted(whole["numbers"]["curves on kodak"]["lee2019"]["bpp"])
    narrow = run(analyses={"rd_curves": {"rates": [rates[1], 10.0]}})
    found = {row[0]: row[2] for row in narrow["table"]["rows"]}["mixture"]
    assert "3 points" in found and "needs at least 4" in found


def test_an_unknown_metric_is_named_before_anything_is_trained(place) -> None:
    folder, run = place
    with pytest.raises(ConfigError, match="values.metric='vmaf' is not allowed; allowed: one of psnr, ms-ssim"):
        run(values=[{**STUDY["values"][0], "metric": "vmaf"}])
    assert not (folder / "results").exists()


def test_run_times_of_two_networks(place) -> None:
    _, run = place
    sizes = {"N": 16, "G": 1, "scan": "wavefront"}
    base = {"name": "jointiq", "M": 24, "global_context": False, "mprm": False, **sizes}
    hybrid = {"name": "lee2019_hybrid", "M1": 12, "M2": 12, **sizes}
    value = {"name": "small", "paper": 46.83, "unit": "% of the time saved", "base": base, "hybrid": hybrid}
    document = run(values=[value], runs={}, measure=[], analyses={"run_time": {"size": [64, 64], "repeats": 1}})
    (row,) = document["table"]["rows"]
    assert row[0] == "small" and row[1].startswith("46.83") and row[2] != "not run"
