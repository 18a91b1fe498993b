"""Parameters and multiplications against hand calculation, and what the times and parts of a model must satisfy."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from jointiq.configs import CONFIGS as CONF
from jointiq.evaluation.complexity import CODING, OTHER, complexity, complexity_table, count_macs, parts_of, steps
from jointiq.layers.gdn import GDN
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec
from jointiq.training.assemble import model_config
from tests.marks import slow_but
from tests.test_systems import CHARACTERISTIC

N, M = 6, 10
SIZE = (64, 128)
CONFIG: dict[str, Any] = {"name": "jointiq", "N": N, "M": M, "enhancer": {"name": "vdsr", "layers": 3, "kernels": 4}}


@pytest.fixture(scope="module")
def model() -> LearnedCodec:
    torch.manual_seed(0)
    return build_model(CONFIG).eval()


@pytest.mark.parametrize(
    ("layer", "channels", "macs"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), 3, 9 * 3 * 5 * 8 * 12),
        (nn.Conv2d(4, 6, 1), 4, 4 * 6 * 8 * 12),
        (nn.Conv2d(4, 6, 4, stride=2, padding=1), 4, 16 * 4 * 6 * 4 * 6),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), 4, 16 * 4 * 6 * 8 * 12),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), 4, 9 * 4 * 8 * 12),
        (GDN(5), 5, 5 * 5 * 8 * 12),
        (GDN(5, inverse=True), 5, 5 * 5 * 8 * 12),
        (nn.ReLU(), 5, 0),
    ],
    ids=["3x3", "1x1", "4x4 down", "4x4 up", "grouped", "GDN", "IGDN", "ReLU"],
)
def test_macs_of_a_layer_are_the_hand_calculation(layer: nn.Module, channels: int, macs: int) -> None:
    assert count_macs(layer, torch.rand(1, channels, 8, 12)) == macs


def hand_calculation() -> dict[str, float]:
    """MACs per pixel where no side is odd: weights of each layer over the pixels each of its positions stands for."""
    gdns = N * N * (1 / 4 + 1 / 16 + 1 / 64)
    transform = 25 * (3 * N / 4 + N * N / 16 + N * N / 64 + N * M / 256) + gdns
    hyper = 9 * N * M / 256 + 25 * N * N * (1 / 1024 + 1 / 4096)
    # f: two 4x4 windows to 2M, 2M to 2M, 2M to 9M; MPRM: twice 11M to 2M to 9M.
    estimator = (2 * 16 * 2 + 2 * 2 + 2 * 9 + 2 * (11 * 2 + 2 * 9)) * M * M / 256
    vdsr = 9 * (3 * 4 + 4 * 4 + 4 * 3)
    return {"g_a": transform, "g_s": transform, "h_a": hyper, "h_s": hyper, "estimator": estimator, "enhancer": vdsr}


def test_macs_of_every_part_are_the_hand_calculation(model: LearnedCodec) -> None:
    parts = complexity(model, SIZE, repeats=0).parts
    counted = {name: cost.macs_per_pixel for name, cost in parts.items() if name != "global_context"}
    assert {name: macs for name, macs in counted.items() if macs} == pytest.approx(hand_calculation())


def test_every_parameter_is_in_one_part(model: LearnedCodec) -> None:
    result = complexity(model, SIZE, repeats=0)
    assert result.total.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert result.total.parameters == sum(cost.parameters for cost in result.parts.values())
    for name, cost in result.parts.items():
        assert cost.parameters == sum(parameter.numel() for parameter in parts_of(model)[name].parameters())


def test_only_counted_means_no_times(model: LearnedCodec) -> None:
    columns = complexity(model, SIZE, repeats=0).columns()
    missing = {key for key, value in columns.items() if value is None}
    assert missing == {"encoding_time", "decoding_time", "encoding_memory", "decoding_memory"}


def test_times_are_those_of_the_parts_that_run(model: LearnedCodec) -> None:
    notes: list[str] = []
    result = complexity(model, SIZE, repeats=2, step=notes.append)
    assert len(notes) == steps(2)
    encoding = {name for name, cost in result.parts.items() if cost.encoding_time}
    decoding = {name for name, cost in result.parts.items() if cost.decoding_time}
    assert encoding == {"g_a", "h_a", CODING, OTHER}
    assert decoding == {"g_s", "enhancer", CODING, OTHER}
    for key in ("encoding_time", "decoding_time"):
        whole = getattr(result.total, key)
        assert whole == pytest.approx(sum(getattr(cost, key) for cost in result.parts.values()))
        assert 0 < whole < 60
    for memory in (result.encoding_memory, result.decoding_memory):
        assert memory is not None and memory > 2**26


def test_time_counts_for_the_part_that_takes_it(model: LearnedCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = GDN.forward
    monkeypatch.setattr(GDN, "forward", lambda self, x: (time.sleep(0.05), forward(self, x))[1])
    result = complexity(model, SIZE, repeats=1)
    # Three GDNs in g_a, three in g_s.
    for seconds in (result.parts["g_a"].encoding_time, result.parts["g_s"].decoding_time):
        assert seconds is not None and seconds >= 0.15


def test_nothing_is_left_behind(model: LearnedCodec) -> None:
    complexity(model, SIZE, repeats=1)
    changed = [module for module in model.modules() if {"forward", "encode", "decode"} & set(module.__dict__)]
    assert changed == []


def test_all_that_is_known_goes_into_json_and_a_table(model: LearnedCodec) -> None:
    result = complexity(model, SIZE, repeats=0)
    written = json.loads(json.dumps(result.as_dict()))
    assert (written["width"], written["height"]) == (128, 64)
    assert {key: written[key] for key in result.columns()} == result.columns()
    assert written["parts"]["g_a"]["macs_per_pixel"] == result.parts["g_a"].macs_per_pixel
    table = complexity_table(result, "title")
    assert [row[0] for row in table.rows] == [*result.parts, "all"]
    assert table.rows[-1][1] == str(result.total.parameters)


def experiments() -> list[str]:
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", slow_but(CHARACTERISTIC, experiments()))
def test_every_system_is_counted_whole_and_by_part(experiment: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[f"+experiment={experiment}", "scale=demo"])
    system = build_model(model_config(cfg))
    result = complexity(system, SIZE, repeats=0)
    assert result.total.parameters == sum(parameter.numel() for parameter in system.parameters())
    named = sum(cost.macs_per_pixel for name, cost in result.parts.items() if name != OTHER)
    assert result.total.macs_per_pixel == pytest.approx(named)
    assert {"g_a", "g_s"} <= set(result.parts)


def test_parts_inside_containers_are_found() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hyper = nn.ModuleDict({"h1": nn.Linear(2, 2), "h2": nn.Linear(2, 2)})
            self.g_a = nn.Sequential(nn.Linear(2, 2))

    assert list(parts_of(Nested())) == ["hyper.h1", "hyper.h2", "g_a"]


def test_a_whole_model_inside_gives_its_own_parts() -> None:
    parts = parts_of(build_model({"name": "compressai", "arch": "bmshj2018-hyperprior", "N": 4, "M": 6}))
    assert {"g_a", "g_s", "h_a", "h_s", "entropy_bottleneck"} <= set(parts)
