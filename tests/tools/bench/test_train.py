"""The training benchmark: what it writes, and that its steps train."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from jointiq.data.images import write_png
from jointiq.data.prepare.patch_cutting import PatchSettings
from jointiq.data.prepare.patch_set import prepare
from jointiq.errors import ConfigError
from jointiq.evaluation.stopwatch import Moment
from tools.bench import train, training_speed
from tools.bench.codec import LIGHT, OURS, THEIRS
from tools.bench.modes import MODES
from tools.bench.training_step import Mbt2018Step, OurStep, TrainingStep

CPU = torch.device("cpu")
CONFIG = {"name": "jointiq", "N": 8, "M": 8, "enhancer": None}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., Any]) -> tuple[dict[str, Any], str]:
    """A run with small networks: what it wrote and what it printed."""
    folder, said = tmp_path_factory.mktemp("train"), io.StringIO()
    write_png(folder / "images" / "a.png", picture(140, 150))
    prepare([str(folder / "images")], folder / "patches", PatchSettings(patches=4, side=128))
    size = ["--N", "8", "--M", "8", "--batch", "2", "--crop", "128", "--threads", "1"]
    options = ["--rounds", "1", "--modes", "fp32", "bf16", "--data", str(folder / "patches"), "--data-steps", "2"]
    small = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(training_speed, "LIGHT_GRDN", small)
        assert train.main([*size, *options, "--output", str(folder / "train.json")]) == 0
    return json.loads((folder / "train.json").read_text()), said.getvalue()


def test_ratios_are_those_of_the_seconds(run: tuple[dict[str, Any], str]) -> None:
    result, said = run
    assert list(result["modes"]) == ["fp32", "bf16"] and "bf16: steps/s" in said
    for entry in result["modes"].values():
        seconds = {name: entry["contenders"][name]["seconds"] for name in (OURS, THEIRS, LIGHT)}
        assert entry["ratio"] == pytest.approx(seconds[THEIRS] / seconds[OURS])
        assert entry["light_grdn_ratio"] == pytest.approx(seconds[THEIRS] / seconds[LIGHT])
        assert entry["contenders"][OURS]["patches_per_second"] == pytest.approx(2 / seconds[OURS])
    assert result["goal"] == {"ratio": 0.9}


def test_the_wait_for_data(run: tuple[dict[str, Any], str]) -> None:
    for entry in run[0]["data"].values():
        assert 0 < entry["share_waiting"] < 1 and entry["steps"] == 2


def test_the_settings_are_written(run: tuple[dict[str, Any], str]) -> None:
    settings = run[0]["settings"]
    assert (settings["N"], settings["M"], settings["batch"], settings["crop"]) == (8, 8, 2, 128)
    assert settings["model"]["enhancer"] is None and settings["model"]["G"] == 3 and settings["model"]["global_context"]


def test_medians_and_turns() -> None:
    order: list[str] = []

    class Step:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, batch: torch.Tensor) -> None:
            order.append(self.name)

    entries: dict[str, TrainingStep] = {"a": Step("a"), "b": Step("b")}
    turns: list[int] = []
    times = training_speed.interleave(entries, torch.zeros(1), 2, steps=2, warm_up=1, advance=lambda: turns.append(1))
    assert order == ["a", "a", "b", "b"] * 3 and len(turns) == 6
    assert {name: len(runs) for name, runs in times.items()} == {"a": 2, "b": 2}
    moments = {name: [Moment(s * k, s) for k in (1, 9, 2)] for name, s in ((OURS, 1.0), (LIGHT, 4.0), (THEIRS, 2.0))}
    summary = training_speed.summary(moments, batch=8)
    assert summary["ratio"] == 2 and summary["light_grdn_ratio"] == 0.5
    assert summary["contenders"][THEIRS]["steps_per_second"] == 0.25


@pytest.mark.parametrize("mode", ["fp32", "bf16"])
def test_steps_train(mode: str) -> None:
    batch = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    ours, theirs = OurStep(CONFIG, CPU, MODES[mode]), Mbt2018Step(8, 8, CPU, MODES[mode])
    for step, net in ((ours, ours.module.net), (theirs, theirs.net)):
        before = {name: value.detach().clone() for name, value in net.named_parameters()}
        step(batch)
        # All gradients end in g_a. A new network's y_hat is zero, and so are the gradients of weights that read it.
        still = [name for name, value in net.named_parameters() if torch.equal(value, before[name])]
        assert not [name for name in still if name.startswith("g_a.")] and len(still) < len(before) / 3


@pytest.mark.parametrize("options", [["--crop", "100"], ["--N", "0"], ["--output", "x.txt"]])
def test_wrong_options(options: list[str]) -> None:
    with pytest.raises(ConfigError, match=options[0]):
        train.main(options)
