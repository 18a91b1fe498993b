"""The command: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from jointiq.commands.complexity import measure
from jointiq.configs import CONFIGS
from jointiq.errors import ConfigError, UserError
from jointiq.models.base import LearnedCodec
from tests.training import tiny


@cache
def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("complexity", overrides=["device=cpu", "size=64x48", *overrides])


def test_a_checkpoint_is_measured(
    tmp_path: Path, living: Callable[..., LearnedCodec], capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = living(), tmp_path / "out.json"
    torch.save(model.state_dict(), tmp_path / "model.ckpt")
    measure(config(f"checkpoint={tmp_path / 'model.ckpt'}", "repeats=1", f"output={output}"))
    written = json.loads(output.read_text())
    assert (written["width"], written["height"]) == (64, 48)
    assert written["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert written["encoding_time"] > 0 and written["decoding_memory"] > 2**26
    assert written["setting"]["model"] == model.config
    printed = capsys.readouterr().out
    assert "g_a" in printed and "peak memory" in printed and "random weights" not in printed


def test_an_experiment_is_counted_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    measure(config("+experiment=enhancer_vdsr", "scale=demo", "repeats=0"))
    printed = capsys.readouterr().out
    assert "enhancer_vdsr" in printed and "1983" in printed and "peak memory" not in printed


def test_times_of_random_weights_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    measure(config("+experiment=enhancer_none", "scale=demo", "repeats=1", "model.N=4", "model.M=4"))
    assert "random weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("size=64", "size=64 .*WIDTHxHEIGHT"),
        ("size=0x64", "size='0x64'"),
        ("size=99999x99999", "megapixels"),
        ("repeats=-1", "repeats=-1"),
        ("repeats=true", "repeats=True"),
        ("output=out.csv", "ending in .json"),
        ("threads=many", "threads='many'"),
        ("device=tpu", "device='tpu'"),
        ("lmbda=7", "lmbda=7"),
    ],
)
def test_wrong_values_are_named(override: str, message: str) -> None:
    right = config("+experiment=jointiq", "scale=demo", "repeats=0")
    with pytest.raises(ConfigError, match=message):
        measure(tiny.changed(right, override))


def test_a_missing_checkpoint_is_an_error() -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        measure(config("checkpoint=missing.ckpt"))
