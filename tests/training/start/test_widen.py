"""``init_from`` a narrower model: what was learnt stays, and the new channels can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jointiq.coding.export import write_export
from jointiq.data.datamodule import ImageData
from jointiq.data.sample import sample_images
from jointiq.errors import UserError
from jointiq.models import build_model
from jointiq.training.run import train
from jointiq.training.start.initialise import initialise
from jointiq.training.start.pca import start_from_components
from tests.training import tiny
from tests.training.typed import last, own

SMALL: dict[str, Any] = {"name": "jointiq", "N": 8, "M": 12, "scan": "quarters", "enhancer": None}
WIDE = {**SMALL, "N": 12, "M": 20}


@pytest.fixture(scope="module")
def patches() -> Tensor:
    images = ImageData(sample_images("train"), [], batch_size=1, crop=128)
    images.setup("fit")
    return images.first_patches(1 << 18)


@pytest.fixture
def small(patches: Tensor) -> Any:
    torch.manual_seed(0)
    net = build_model(SMALL).eval()
    start_from_components(net, patches, 0.01)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.005 * torch.randn_like(weight)
    return net


def widened(small: Any, patches: Tensor, folder: Path, **changes: Any) -> Any:
    state = {f"net.{name}": value for name, value in small.state_dict().items()}
    torch.save({"model_config": small.config, "state_dict": state}, folder / "small.ckpt")
    torch.manual_seed(1)
    net = build_model({**WIDE, **changes}).eval()
    said = initialise(net, str(folder / "small.ckpt"), patches=lambda: patches)
    assert "N=8 there, 12 here, M=12 there, 20 here" in said and "h_s, z_prior" in said
    return net


@torch.no_grad()
def test_the_wide_model_computes_what_the_narrow_one_did(small: Any, patches: Tensor, tmp_path: Path) -> None:
    net = widened(small, patches, tmp_path)
    x = patches[:4].float() / 255
    y, wide = small.analysis(x), net.analysis(x)
    torch.testing.assert_close(wide[:, :12], y)
    y_hat = torch.cat([y, wide[:, 12:]], 1).round()
    x_hat = small.synthesis(y_hat[:, :12], (128, 128))
    torch.testing.assert_close(net.synthesis(y_hat, (128, 128)), x_hat, rtol=1e-4, atol=1e-4)
    z, wide_z = small.entropy_model.hyper_analysis(y_hat[:, :12]), net.entropy_model.hyper_analysis(y_hat)
    torch.testing.assert_close(wide_z[:, :8], z, rtol=1e-4, atol=1e-3)
    z_hat = torch.cat([z, wide_z[:, 8:]], 1).round()
    c, wide_c = small.entropy_model.h_s(z_hat[:, :8], (8, 8)), net.entropy_model.h_s(z_hat, (8, 8))
    torch.testing.assert_close(wide_c[:, :12], c, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_new_channels_of_y_tell_what_the_others_do_not(small: Any, patches: Tensor, tmp_path: Path) -> None:
    y = widened(small, patches, tmp_path).analysis(patches.float() / 255).transpose(0, 1).flatten(1)
    old, new = y[:12], y[12:]
    correlations = torch.corrcoef(y)[12:, :12]
    assert correlations.abs().max() < 0.05
    assert (new.round() != 0).any(1).all()
    assert old.std(1).min() < new.std(1).mean() < old.std(1).max()


def test_every_new_weight_gets_a_gradient(small: Any, patches: Tensor, tmp_path: Path) -> None:
    net = widened(small, patches, tmp_path).train()
    out = net(patches[:4].float() / 255)
    sum(value.sum() for value in (out["x_mid"].square(), *out["log_likelihoods"].values())).backward()
    assert net.g_s.deconvs[0].weight.grad[12:, :8].abs().amax((1, 2, 3)).min() > 0
    assert net.g_a.convs[3].weight.grad[:12, 8:].abs().amax((0, 2, 3)).min() > 0


@torch.no_grad()
def test_a_model_of_all_rates_starts_from_one_of_one_rate(small: Any, patches: Tensor, tmp_path: Path) -> None:
    net = widened(small, patches, tmp_path, rates="continuous")
    x = patches[:2].float() / 255
    middle = torch.full((2,), 50.5)
    torch.testing.assert_close(net.analysis(x, middle)[:, :12], small.analysis(x), rtol=1e-4, atol=1e-4)
    assert (net.entropy_model.z_prior.log_sigma[:, :8] == small.entropy_model.z_prior.log_sigma).all()


@torch.no_grad()
def test_new_channels_have_the_gains_of_the_old(small: Any, patches: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    every = build_model({**SMALL, "rates": "continuous"})
    every.gain_a.y.log_gain += 1
    net = widened(every, patches, tmp_path, rates="continuous")
    assert torch.equal(net.gain_a.y.log_gain[:, :12], every.gain_a.y.log_gain)
    torch.testing.assert_close(net.gain_a.y.log_gain[:, 12:], every.gain_a.y.log_gain[:, :8])


def test_f_of_another_width_starts_anew(small: Any, patches: Tensor, tmp_path: Path) -> None:
    net = widened(small, patches, tmp_path, estimator_width=1)
    old, new = (model.entropy_model.estimator.hidden for model in (small, net))
    assert not torch.equal(new.bias[: len(old.bias)], old.bias)


def test_a_narrower_model_is_refused(small: Any, patches: Tensor, tmp_path: Path) -> None:
    write_export(small, tmp_path / "small.safetensors")
    net = build_model({**SMALL, "N": 12, "M": 8})
    with pytest.raises(UserError, match="M=12 there, 8 here"):
        initialise(net, str(tmp_path / "small.safetensors"), patches=lambda: patches)


def test_a_training_grows(tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    train(tiny.config(*own(tmp_path), f"paths.run_dir={first}"))
    cfg = tiny.config(*own(tmp_path), f"init_from={last(first)}", f"paths.run_dir={second}")
    cfg.model.N += 2
    cfg.model.M += 3
    train(cfg)
    state = torch.load(last(second), weights_only=True)
    assert (state["model_config"]["N"], state["model_config"]["M"]) == (cfg.model.N, cfg.model.M)
