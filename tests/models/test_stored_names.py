"""Weights from before the entropy model was a module of its own: every way to read them still works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.load import load_model
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec
from jointiq.training.start.initialise import initialise

MODELS: dict[str, dict[str, Any]] = {
    "jointiq": {"name": "jointiq", "N": 4, "M": 6},
    "hybrid": {"name": "lee2019_hybrid", "N": 4, "M1": 4, "M2": 2},
    "balle2017": {"name": "balle2017", "N": 4},
    "coarse_to_fine": {"name": "coarse_to_fine", "N": 4, "M": 6, "h2": 8, "h1": 4, "phase": 3},
}
# The order in which those models held their parts: an optimizer's state goes by it.
PARTS = {
    "jointiq": ["g_a", "g_s", "h_a", "h_s", "z_prior", "global_context", "estimator", "enhancer"],
    "hybrid": ["g_a", "g_s", "h_a", "h_s", "z_prior", "estimator", "enhancer"],
    "balle2017": ["g_a", "g_s", "prior", "enhancer"],
    "coarse_to_fine": ["g_a", "g_s", "h_a2", "h_s2", "predict_y", "h_a1", "h_s1", "predict_h2", "h1_prior",
                       "aggregation", "head_y", "head_h2", "enhancer"],
}  # fmt: skip
ENHANCER = {"name": "vdsr", "layers": 2, "kernels": 2}


def old_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Its state dict with the names that a version before had."""
    state = {name.replace("entropy_model.", ""): value.clone() for name, value in model.state_dict().items()}
    assert not any("entropy_model" in name for name in state) and len(state) == len(model.state_dict())
    return state


def assert_same_weights(model: LearnedCodec, expected: LearnedCodec) -> None:
    weights = model.weights()
    assert weights.keys() == expected.weights().keys()
    for name, value in expected.weights().items():
        assert torch.equal(weights[name], value), name


def build(name: str, seed: int) -> Any:
    torch.manual_seed(seed)
    return build_model({**MODELS[name], "enhancer": ENHANCER}).eval()


@pytest.mark.parametrize("name", MODELS)
def test_files_of_before_are_read(name: str, tmp_path: Path) -> None:
    model = build(name, 0)
    old = old_state(model)
    torch.save(old, tmp_path / "old.pth.tar")
    checkpoint = {"model_config": model.config, "state_dict": {f"net.{key}": value for key, value in old.items()}}
    torch.save(checkpoint, tmp_path / "old.ckpt")
    for file in ("old.pth.tar", "old.ckpt"):
        assert_same_weights(load_model(tmp_path / file), model)
    assert_same_weights(type(model).from_state_dict(old).eval(), model)
    net = build(name, 1)
    assert fingerprint(net) != fingerprint(model)
    assert "all weights taken" in initialise(net, str(tmp_path / "old.ckpt"))
    assert fingerprint(net.eval()) == fingerprint(model)


@pytest.mark.parametrize("name", MODELS)
def test_a_training_of_before_goes_on(name: str) -> None:
    """Lightning loads the weights through the module around the network, and moments by the order of parameters."""
    model, net = build(name, 0), build(name, 1)
    around = nn.ModuleDict({"net": net})
    around.load_state_dict({f"net.{key}": value for key, value in old_state(model).items()})
    assert fingerprint(net) == fingerprint(model)
    order = [key.replace("entropy_model.", "").split(".")[0] for key, _ in net.named_parameters()]
    assert list(dict.fromkeys(order)) == PARTS[name]
    with pytest.raises(RuntimeError, match="Missing key"):
        around.load_state_dict({key: value for key, value in around.state_dict().items() if "g_a" not in key})


@pytest.mark.parametrize("name", MODELS)
def test_exports_have_the_names_of_before(name: str, tmp_path: Path) -> None:
    model = build(name, 0)
    write_export(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        names, config = set(file.keys()), json.loads(file.metadata()["config"])
    floats = {key for key in names if not key.startswith(("exact.", "tables."))}
    assert floats < set(old_state(model)) and floats == {key for key in model.weights() if model.is_float(key)}
    assert "entropy_model" not in config and list(config)[0] == "name" and list(config)[-1] == "enhancer"
