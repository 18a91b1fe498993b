from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import yaml
from PIL import Image

from jointiq.coding import shipped
from jointiq.errors import ConfigError, DataError, UserError
from jointiq.models.objective import Objective
from jointiq.studies import training
from jointiq.studies.plan import read_study
from jointiq.studies.report import BEGIN, END, HEADER, NOT_RUN
from jointiq.studies.runner import Options, run_study
from jointiq.sweeps.jobs import JobResult
from tests.shipped_folder import make_folder
from tests.studies.pretended import PretendedJobs

SMALL = ["scale=demo", "model.N=6", "model.M=8"]
STUDY = {
    "title": "Mixture",
    "source": "a paper",
    "shows": "What a mixture is worth.",
    "settings": SMALL,
    "measure": ["val", "test"],
    "decode": "one",
    "values": [
        {"name": "without GMM", "paper": 2.76, "unit": "%", "test": "single", "anchor": "mixture"},
        {"name": "without GRDN", "paper": 8.61, "unit": "%", "test": "no_grdn", "anchor": "mixture"},
    ],
    "runs": {
        "trunk": {"overrides": ["+experiment=lee2019"]},
        "mixture": {"overrides": ["+experiment=lee2019_gmm", "stage=entropy"], "init_from": "trunk", "seeds": [0, 1]},
        "single": {"overrides": ["+experiment=lee2019", "stage=entropy"], "init_from": "trunk", "seeds": [0, 1]},
    },
    "analyses": {"paired": {"quantity": "bits"}},
    "scales": {"pilot": {"note": "Tiny."}, "paper": {"note": "Big."}},
}


@pytest.fixture
def place(tmp_path, picture, monkeypatch, request):
    """A study at one lambda (or those of the parameter), its images, and trainings that take no time."""
    for name, seeds in {"train": (0, 1), "val": (2, 5), "kodak": (3, 4)}.items():
        (tmp_path / name).mkdir()
        for seed in seeds:
            Image.fromarray(picture(64, 80, seed)).save(tmp_path / name / f"image{seed}.png")
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    (tmp_path / "experiments" / "mine" / "study.yaml").write_text(
        yaml.safe_dump({**STUDY, "lmbda": getattr(request, "param", [0.5])}, sort_keys=False)
    )
    (tmp_path / "experiments" / "mine" / "README.md").write_text(f"# Mine\n\n{BEGIN}\n{END}\n\nEnd.\n")
    jobs = PretendedJobs()
    monkeypatch.setattr(training, "run_jobs", jobs)
    folders = {key: (f"{tmp_path / name}",) for key, name in (("train", "train"), ("val", "val"), ("test", "kodak"))}
    options = Options(**folders, results=tmp_path / "results")
    return tmp_path, jobs, options


def run(place, **changes):
    folder, jobs, options = place
    jobs.started.clear()
    return run_study(read_study("mine", folder / "experiments"), "pilot", replace(options, **changes))


def test_a_study_trains_measures_and_reports_once(place):
    folder, jobs, _ = place
    jobs.fails = 2
    assert run(place) == 1
    assert len(jobs.started) == 1 + 2 + 2
    report = (folder / "experiments" / "mine" / "results" / "pilot" / "report.md").read_text()
    assert "Not finished" in report and "mixture, lambda 0.5, seed 1" in report
    # The same command makes up for what has failed.
    jobs.fails = None
    assert run(place) == 0
    assert len(jobs.started) == 1
    results = folder / "experiments" / "mine" / "results" / "pilot"
    document = json.loads((results / "results.json").read_text())
    by_name = {}
    for row in document["table"]["rows"]:
        by_name.setdefault(row[0], []).append(dict(zip(HEADER, row, strict=True)))
    assert [row["measured on"].split(" (")[0] for row in by_name["without GMM"]][1] == "kodak"
    for row in by_name["without GMM"]:
        assert row["paper"] == "2.76 %" and row["scale"] == "pilot" and row["verdict"]
        assert row["trained on"].endswith("(2 images, " + row["trained on"][-9:])
        assert row["steps"].count("+") == 1 and row["device"].startswith("CPU")
    assert by_name["without GRDN"][0]["ours"] == NOT_RUN
    ours = [one for one in document["ours"] if one["value"] == "without GMM"]
    assert all(one["seeds"] == 2 and one["lambdas"] == 1 and one["low"] < one["mean"] < one["high"] for one in ours)
    assert document["trainings"] == {"runs": 5, "hours": 5}
    rows = list(csv.reader((results / "table.csv").open()))
    assert rows[0] == list(HEADER) and len(rows) == 4
    readme = (folder / "experiments" / "mine" / "README.md").read_text()
    assert readme.startswith("# Mine") and readme.endswith("End.\n")
    assert "without GMM" in readme and "Scale `paper`: not run." in readme and "results/pilot/report.md" in readme
    assert "5 trainings, 5.0 hours together." in readme
    assert "| 0, 1 | 60.0 | trunk |" in (results / "report.md").read_text()
    kept = [path for path in results.iterdir() if path.suffix != ".png"]
    assert not any(str(folder) in path.read_text() for path in kept)
    measured = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("measured/*.json")}
    assert len(measured) == 5 * 4  # two sets of two images

    # Under other names, and so in another order, the images are the same.
    (folder / "kodak" / "image3.png").rename(folder / "kodak" / "z.png")
    assert run(place) == 0
    assert jobs.started == []
    assert {path: path.stat().st_mtime_ns for path in measured} == measured
    again = json.loads((results / "results.json").read_text())["ours"]
    assert again == document["ours"]


def test_a_shipped_model_beside_itself_with_refined_latents(place, living, monkeypatch):
    folder, jobs, _ = place
    model = living(rates="continuous")
    model.objective = Objective(0.06)
    (folder / "weights").mkdir()
    monkeypatch.setattr(shipped, "WEIGHTS", make_folder(folder / "weights", {"tiny": model}))
    plain = {"shipped": "tiny", "qualities": [30, 70]}
    study = {
        **{key: STUDY[key] for key in ("title", "source", "shows")},
        "runs": {"plain": plain, "refined": {**plain, "refine": 40}},
        "analyses": {"rd_curves": {}},
        "scales": {"pilot": {"note": "Tiny."}},
    }
    (folder / "experiments" / "mine" / "study.yaml").write_text(yaml.safe_dump(study))
    assert run(place) == 0 and jobs.started == []
    document = json.loads((folder / "experiments" / "mine" / "results" / "pilot" / "results.json").read_text())
    curves = document["numbers"]["curves on kodak"]
    assert [len(curves[name]["bpp"]) for name in ("plain", "refined")] == [2, 2]
    assert curves["plain"]["bpp"] != curves["refined"]["bpp"]


@pytest.mark.slow
@pytest.mark.parametrize("place", [[0.5, 0.1]], indirect=True)
def test_what_starts_from_a_failed_training_is_missing_too(place):
    folder, jobs, _ = place
    jobs.fails = 0
    assert run(place) == 1
    assert len(jobs.started) == 2 + 2 + 2
    report = (folder / "experiments" / "mine" / "results" / "pilot" / "report.md").read_text()
    assert "Not finished" in report and "trunk, lambda 0.5, seed 0" in report
    jobs.fails = None
    assert run(place) == 0
    assert len(jobs.started) == 1 + 2 + 2


@pytest.mark.slow
def test_overrides_make_another_study_that_leaves_the_kept_results_alone(place):
    folder, jobs, _ = place
    assert run(place, overrides=("model.G=2",)) == 0
    assert not (folder / "experiments" / "mine" / "results").exists()
    assert (folder / "results" / "studies" / "mine" / "pilot" / "results" / "results.json").is_file()
    assert all("model.G=2" in overrides for overrides in jobs.started)


def test_test_images_that_were_trained_on_and_missing_folders_are_refused(place):
    folder, jobs, options = place
    with pytest.raises(DataError, match="training set"):
        run(place, test=(str(folder / "train"),))
    with pytest.raises(ConfigError, match="--val"):
        run(place, val=())
    with pytest.raises(ConfigError, match="--test"):
        run(place, test=())
    with pytest.raises(ConfigError, match="SET=DIR"):
        run(place, published=("kodak",))
    assert jobs.started == []


def test_what_was_stopped_and_what_failed_altogether_writes_no_results(place, monkeypatch):
    folder, _, _ = place
    results = folder / "experiments" / "mine" / "results"
    monkeypatch.setattr(training, "run_jobs", lambda jobs, *_, **__: [JobResult(job, None) for job in jobs])
    with pytest.raises(SystemExit, match="143"):
        run(place)
    monkeypatch.setattr(training, "run_jobs", lambda jobs, *_, **__: [JobResult(job, 1) for job in jobs])
    with pytest.raises(UserError, match="none of its 5 trainings"):
        run(place)
    assert not results.exists()
