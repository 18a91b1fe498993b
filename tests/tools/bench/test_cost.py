"""The cost model: multiplications by hand, calibration, and what the tables add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from jointiq.configs import CONFIGS
from jointiq.errors import ConfigError, UserError
from jointiq.evaluation.complexity import count_macs
from jointiq.layers.transforms import AnalysisTransform
from tools.bench import cost
from tools.bench.codec import LIGHT, OURS

SMALL = ["scale=demo", "model.N=8", "model.M=8", "data.crop=128"]


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def test_macs_of_a_convolution_network() -> None:
    layers = [(3, 8, 64), (8, 8, 32), (8, 8, 16), (8, 8, 8)]
    gdns = sum(8 * 8 * side**2 for side in (64, 32, 16))
    by_hand = sum(25 * i * o * side**2 for i, o, side in layers) + gdns
    assert count_macs(AnalysisTransform(8, 8), torch.zeros(1, 3, 128, 128)) == by_hand


def test_what_is_frozen_and_what_is_cropped_costs_less() -> None:
    joint = cost.work_of(config("+experiment=jointiq", *SMALL))
    enhancer = cost.work_of(config("+experiment=jointiq", *SMALL, "stage=enhancer", "init_from=x"))
    crop = cost.work_of(config("+experiment=jointiq", *SMALL, "stage=crop", "init_from=x"))

    def a_step(work: cost.Work) -> tuple[float, float]:
        return work.macs_i / work.steps, work.macs_q / work.steps

    (macs_i, macs_q), share = a_step(joint), (48 / 128) ** 2
    assert joint.steps == 450 and macs_i > 0 and macs_q > 0
    assert a_step(enhancer) == (pytest.approx(macs_i / 3), pytest.approx(macs_q * share))
    assert a_step(crop) == (pytest.approx(macs_i), pytest.approx(macs_q * share))
    assert cost.work_of(config("+experiment=ablation_no_grdn", *SMALL)).macs_q == 0


def test_stages_of_a_chain_are_all_counted() -> None:
    overrides = ("+experiment=jointiq_full", "scale=demo")
    cfgs = list(cost.stage_configs(config(*overrides), overrides))
    assert [cfg.stage.name for cfg in cfgs] == ["joint", "enhancer", "crop"]
    assert [cfg.trainer.max_steps for cfg in cfgs] == [450, 150, 200]


def bench_file(tmp_path: Path) -> Path:
    model = {"name": "jointiq", "N": 8, "M": 8, "enhancer": None}
    settings = {"model": model, "N": 8, "M": 8, "batch": 2, "crop": 128, "device": "X", "threads": 1}
    settings["light_grdn"] = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
    contenders = {OURS: {"seconds": 3.0}, LIGHT: {"seconds": 5.0}}
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"settings": settings, "modes": {"fp32": {"contenders": contenders}}}))
    return path


def test_the_model_gives_back_what_was_measured(tmp_path: Path) -> None:
    path = bench_file(tmp_path)
    settings: dict[str, Any] = json.loads(path.read_text())["settings"]
    speed = cost.measured_speed(path, None)
    macs_i, macs_q = cost.network_macs({**settings["model"], "enhancer": settings["light_grdn"]}, 128)
    assert speed.seconds(cost.Work(1, 3 * 2 * macs_i, 0)) == pytest.approx(3)
    assert speed.seconds(cost.Work(1, 3 * 2 * macs_i, 3 * 2 * macs_q)) == pytest.approx(5)
    with pytest.raises(UserError, match="no mode bf16; allowed: fp32"):
        cost.measured_speed(path, "bf16")
    path.write_text("{}")
    with pytest.raises(UserError, match=r"python -m tools\.bench\.train"):
        cost.measured_speed(path, None)


def test_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shared, own = Path("a"), Path("b")
    works = {
        "fig1": {shared: cost.Work(10, 3e18, 0)},
        "fig2": {shared: cost.Work(10, 3e18, 0), own: cost.Work(5, 0, 6e18)},
    }
    monkeypatch.setattr(cost, "study_work", works.__getitem__)
    monkeypatch.setattr(cost, "rates_table", lambda *_: cost.Table("rates", ("x",)))
    assert cost.main(["--studies", "fig1", "fig2", "--tflops", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    hours = {line[0]: (line[-4], line[-1]) for line in lines if line and line[0] in ("fig1", "fig2", "all,")}
    # 3e18 multiplications are 6e18 operations, 6e6 seconds at 1e12 a second.
    assert hours == {"fig1": ("1", "1667"), "fig2": ("2", "5000"), "all,": ("2", "5000")}


@pytest.mark.slow
def test_exchange_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "network_macs", lambda config, side: (10**9, 0))
    monkeypatch.setattr(cost, "build_model", lambda config: torch.nn.Linear(1000, 2000, bias=False))
    rows = cost.rates_table(cost.assumed_speed(1.0), devices=4, link=10).rows
    assert [row[0] for row in rows][:2] == ["0.5", "0.35"]
    _, N, M, millions, megabytes, macs, seconds, milliseconds, speed_up = rows[0]
    assert (N, M, millions, megabytes) == ("128", "128", "2.0", "8")
    # 8 patches, 3 passes, 10^9 MACs each, at 1 TFLOP/s.
    assert (macs, seconds) == ("0.02", "0.048")
    # Three quarters of the 8 MB twice, at 10 GB/s.
    assert milliseconds == "1.2"
    assert float(speed_up) == pytest.approx(0.048 / (0.048 / 4 + 0.0012), abs=0.1)


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="--tflops"):
        cost.main(["--tflops", "0"])
