"""``init_from``: what is taken, what starts anew, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jointiq.coding.export import write_export
from jointiq.coding.load import load_model
from jointiq.errors import UserError
from jointiq.models import build_model
from jointiq.training.run import train
from jointiq.training.start.initialise import initialise
from tests.training import tiny
from tests.training.tiny import weights
from tests.training.typed import last, own

LIGHT = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
CONFIG: dict[str, Any] = {"name": "jointiq", "N": 4, "M": 8, "scan": "raster", "enhancer": LIGHT}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = build_model(CONFIG)
    state = {f"net.{name}": value for name, value in net.state_dict().items()}
    torch.save({"model_config": net.config, "state_dict": state}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def equal_parts(net: Any, path: Path) -> set[str]:
    saved = load_model(path).weights()
    mine = net.weights()
    different = {
        name.split(".")[0]
        for name, value in mine.items()
        if name != "_extra_state" and not value.equal(saved.get(name, value + 1))
    }
    return all_parts(net) - different


def all_parts(net: Any) -> set[str]:
    """The networks of a model, and those of its entropy model."""
    return {name.split(".")[0] for name in net.weights() if name != "_extra_state"}


def test_the_same_model_is_taken_whole(source: Path) -> None:
    net = build_model(CONFIG)
    assert equal_parts(net, source) != all_parts(net)
    assert initialise(net, str(source)) == f"{source}: all weights taken"
    assert equal_parts(net, source) == all_parts(net)


def test_another_enhancer_starts_anew(source: Path) -> None:
    torch.manual_seed(5)
    net = build_model({**CONFIG, "enhancer": {**LIGHT, "kernels": 6}})
    before = [parameter.clone() for parameter in net.enhancer.parameters()]
    line = initialise(net, str(source))
    assert "weights of the compression network taken; the enhancer grdn" in line
    assert "kernels=6 starts anew" in line and "kernels=4 there" in line
    assert equal_parts(net, source) == all_parts(net) - {"enhancer"}
    assert all(map(torch.equal, before, net.enhancer.parameters()))
    assert net.config["enhancer"]["kernels"] == 6
    assert bytes(net.state_dict()["_extra_state"].tolist()).count(b'"kernels": 6') == 1


def test_an_enhancer_can_be_left_out_or_added(source: Path, tmp_path: Path) -> None:
    plain = build_model({**CONFIG, "enhancer": None})
    assert "no enhancer here" in initialise(plain, str(source))
    torch.save({"model_config": plain.config, "state_dict": {f"net.{k}": v for k, v in plain.state_dict().items()}},
               tmp_path / "plain.ckpt")  # fmt: skip
    assert "starts anew (none there)" in initialise(build_model(CONFIG), str(tmp_path / "plain.ckpt"))


def test_an_export_will_do(tmp_path: Path) -> None:
    write_export(build_model(CONFIG), tmp_path / "m.safetensors")
    net = build_model(CONFIG)
    assert "all weights" in initialise(net, str(tmp_path / "m.safetensors"))


@pytest.mark.parametrize(("key", "value"), [("N", 8), ("G", 1), ("scan", "wavefront"), ("hyper_abs", True)])
def test_another_compression_network_is_refused(source: Path, key: str, value: Any) -> None:
    net = build_model({**CONFIG, key: value})
    with pytest.raises(UserError) as caught:
        initialise(net, str(source))
    theirs = load_model(str(source)).config[key]
    assert f"another compression network: {key}={theirs} there, {value} here;" in str(caught.value)
    assert str(caught.value).endswith(f"or here with model.{key}={theirs}")


@pytest.mark.parametrize("scan", ["wavefront", "quarters"])
def test_the_trunk_alone(source: Path, scan: str) -> None:
    torch.manual_seed(5)
    net = build_model({**CONFIG, "G": 1, "hyper_abs": True, "scan": scan, "global_context": False})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    line = initialise(net, str(source), "trunk")
    assert "weights of g_a, g_s, enhancer taken; the rest starts anew" in line
    # The prior of z starts at zero in every model.
    assert equal_parts(net, source) - {"z_prior"} == {"g_a", "g_s", "enhancer"}
    rest = {name: value for name, value in net.state_dict().items() if not name.startswith(("g_a", "g_s", "enhancer"))}
    assert all(value.equal(before[name]) for name, value in rest.items())


@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [("N", 8, "N=4 there, 8 here"), ("M", 6, "M=8 there, 6 here"), ("enhancer", None, "kernels=4 there, none here")],
)
def test_the_trunks_have_to_be_alike(source: Path, key: str, value: Any, difference: str) -> None:
    with pytest.raises(UserError, match=f"another network: .*{difference}; allowed: with stage.takes=trunk one with"):
        initialise(build_model({**CONFIG, key: value}), str(source), "trunk")


def test_the_windows_of_another_order_are_not_shared(source: Path) -> None:
    net = build_model({**CONFIG, "scan": "quarters"})
    line = initialise(net, str(source), "shared")
    assert "h_a, h_s, z_prior, estimator.hidden taken; the rest starts anew" in line


def test_what_entropy_models_share_is_taken_whatever_their_mixture_and_contexts_are(source: Path) -> None:
    torch.manual_seed(5)
    net = build_model({**CONFIG, "G": 1, "scan": "wavefront", "global_context": False, "mprm": False})
    output = net.entropy_model.estimator.preliminary.weight.clone()
    line = initialise(net, str(source), "shared")
    assert "h_a, h_s, z_prior, estimator.from_hyper, estimator.from_known, estimator.hidden taken" in line
    assert equal_parts(net, source) == {"g_a", "g_s", "enhancer", "h_a", "h_s", "z_prior"}
    saved = torch.load(source, weights_only=True)["state_dict"]
    for name in ("from_hyper", "from_known", "hidden"):
        assert net.weights()[f"estimator.{name}.weight"].equal(saved[f"net.entropy_model.estimator.{name}.weight"])
    assert net.entropy_model.estimator.preliminary.weight.equal(output)


def test_no_variant_has_a_head_start(source: Path) -> None:
    torch.manual_seed(5)
    net = build_model(CONFIG)
    before = {name: value.clone() for name, value in net.entropy_model.estimator.state_dict().items()}
    initialise(net, str(source), "shared")
    anew = [name for name in before if name.startswith(("preliminary", "mprm"))]
    assert anew and all(net.entropy_model.estimator.state_dict()[name].equal(before[name]) for name in anew)


@pytest.mark.parametrize("key", ["hyper_abs", "hyper_exp"])
def test_entropy_models_share_nothing_that_works_differently(source: Path, key: str) -> None:
    net = build_model({**CONFIG, key: True})
    with pytest.raises(UserError, match=f"{key}=False there, True here; allowed: with stage.takes=shared one with"):
        initialise(net, str(source), "shared")
    initialise(net, str(source), "trunk")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="init_from: .*none.ckpt: no such"):
        initialise(build_model(CONFIG), str(tmp_path / "none.ckpt"))


@pytest.mark.slow
def test_fine_tuning_for_ms_ssim(tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    mse, tuned = tmp_path / "mse", tmp_path / "tuned"
    train(tiny.config(*own(tmp_path), f"paths.run_dir={mse}"))
    options = ("distortion=ms_ssim", f"init_from={last(mse)}", "optim.lr=1e-9")
    train(tiny.config(*own(tmp_path), *options, f"paths.run_dir={tuned}"))
    checkpoint = torch.load(last(tuned), weights_only=True)
    assert (checkpoint["distortion"], checkpoint["global_step"]) == ("ms_ssim", 2)
    for key, value in weights(mse).items():
        torch.testing.assert_close(weights(tuned)[key], value, rtol=1e-4, atol=1e-6)
    assert load_model(last(tuned)).config == load_model(last(mse)).config
