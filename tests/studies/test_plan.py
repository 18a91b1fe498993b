from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jointiq.errors import ConfigError, UserError
from jointiq.studies.analyses import check_analyses
from jointiq.studies.plan import EXPERIMENTS, SCALES, read_study, study_names

STUDY = {
    "title": "T",
    "source": "S",
    "shows": "two\nlines",
    "lmbda": [0.5, 0.1],
    "runs": {
        "trunk": {"overrides": ["+experiment=jointiq"]},
        "b": {"overrides": ["stage=entropy"], "init_from": "trunk", "seeds": [0, 1], "lmbda": [0.1]},
    },
    "analyses": {"paired": None},
    "scales": {"demo": {"settings": ["scale=demo"]}, "paper": {"lmbda": [0.2, 0.1]}},
}


def write(folder: Path, **changes: object) -> Path:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return folder


def test_a_scale_wins_over_what_stands_at_the_top(tmp_path):
    study = read_study("mine", write(tmp_path))
    demo, paper = study.at("demo"), study.at("paper")
    assert study.shows == "two lines"
    assert [run.lmbda for run in demo.runs] == [(0.5, 0.1), (0.1,)]
    assert paper.runs[0].lmbda == (0.2, 0.1)
    assert demo.runs[1].overrides == ("stage=entropy", "scale=demo")
    assert demo.runs[1].init_from == "trunk" and demo.runs[1].seeds == (0, 1)
    assert demo.analyses == (("paired", {}),)


def test_a_run_may_be_a_shipped_model(tmp_path):
    scale = read_study("mine", write(tmp_path, runs={"ours": {"shipped": "jointiq-mse"}})).at("demo")
    assert not scale.trains and scale.runs[0].shipped == "jointiq-mse"
    assert (scale.runs[0].qualities, scale.runs[0].refine) == (None, 0)
    refined = {"shipped": "jointiq-mse", "qualities": [10, 90], "refine": 200}
    run = read_study("mine", write(tmp_path, runs={"ours": refined})).at("demo").runs[0]
    assert (run.qualities, run.refine) == ((10.0, 90.0), 200)
    with pytest.raises(ConfigError, match=r"ours\.refine.*a whole number"):
        read_study("mine", write(tmp_path, runs={"ours": {**refined, "refine": 0.5}}))
    with pytest.raises(ConfigError, match="overrides"):
        read_study("mine", write(tmp_path, runs={"ours": {"shipped": "jointiq-mse", "overrides": []}}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"extra": 1}, "extra"),
        ({"scales": {"tiny": {}}}, "tiny"),
        ({"lmbda": [0.5, 0.5]}, "lmbda"),
        ({"lmbda": "0.5"}, "lmbda"),
        ({"measure": ["train"]}, "train"),
        ({"decode": "none"}, "decode"),
        ({"analyses": {}}, "analyses"),
        ({"values": [{"name": "x"}]}, "paper"),
        ({"values": [{"name": "x", "paper": 1, "sense": "fewer"}]}, "sense='fewer' is not allowed"),
        ({"runs": {"a": {"overrides": [], "init_from": "b"}}}, "init_from"),
        ({"runs": {"a": {"overrides": [], "steps": 3}}}, "steps"),
        ({"runs": {"a": {"overrides": [], "lmbda": [1]}, "b": {"overrides": [], "init_from": "a"}}}, "lmbda"),
        ({"runs": {"a": {"overrides": [], "seeds": [0.5]}}}, "seeds"),
    ],
)
def test_what_is_not_allowed_is_named(tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        read_study("mine", write(tmp_path, **changes))


def test_unknown_analyses_and_options_are_refused_before_anything_runs(tmp_path):
    for analyses in ({"no_such": None}, {"paired": {"quantitiy": "bits"}}):
        with pytest.raises(ConfigError, match="quantitiy|no_such"):
            check_analyses(read_study("mine", write(tmp_path, analyses=analyses)).at("demo"))


def test_unknown_names_and_broken_files_are_user_errors(tmp_path):
    with pytest.raises(ConfigError, match="theirs"):
        read_study("theirs", write(tmp_path))
    (tmp_path / "mine" / "study.yaml").write_text("title: [")
    with pytest.raises(UserError, match=r"study\.yaml"):
        read_study("mine", tmp_path)


@pytest.mark.parametrize("name", study_names())
def test_every_shipped_study_is_complete(name):
    study = read_study(name)
    assert set(study.scales) <= set(SCALES) and "paper" in study.scales and len(study.scales) > 1
    for scale in study.scales.values():
        check_analyses(scale)
        assert scale.note
        assert scale.values
    readme = (EXPERIMENTS / name / "README.md").read_text()
    assert f"python -m src.study {name} --scale " in readme
    assert "<!-- results: written by src.study -->" in readme
