"""Training of the enhancer alone: what is frozen stays, what is left of the loss, what the optimizer holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jointiq.errors import ConfigError
from jointiq.models import build_model
from jointiq.training.modules.compression import EnhancementModule
from jointiq.training.modules.crops import Crops
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import constant

CONFIG: dict[str, Any] = {
    "name": "jointiq", "N": 4, "M": 4, "G": 1, "global_context": False, "mprm": False,
    "enhancer": {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4},
}  # fmt: skip


def module(**options: Any) -> EnhancementModule:
    torch.manual_seed(0)
    return EnhancementModule(build_model(CONFIG), RateDistortionLoss(0.1), constant(), lr=1e-2, **options)


def test_a_step_changes_the_enhancer_alone() -> None:
    trained = module()
    before = {name: value.clone() for name, value in trained.net.state_dict().items()}
    optimizer = trained.configure_optimizers()["optimizer"]
    loss, _, values = trained.training_loss(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), None)
    loss.backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, value in trained.net.state_dict().items() if not value.equal(before[name])}
    assert changed == {"enhancer"} and set(values) == {"loss"}
    held = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    assert held == sum(parameter.numel() for parameter in trained.net.enhancer.parameters())


def test_the_loss_is_the_distortion_of_what_a_decoder_sees() -> None:
    trained = module()
    x = torch.rand(2, 3, 64, 96)
    loss, x_hat, _ = trained.training_loss(x, x, None)
    decoded = trained.net(x)["x_hat"]  # evaluation mode: rounded latents, no noise
    torch.testing.assert_close(x_hat, decoded)
    torch.testing.assert_close(loss, 0.9 / 1000 * ((decoded - x) * 255).square().mean())


def test_crops_are_cut_before_the_enhancer() -> None:
    trained = module(crop=32)
    x, crops = torch.rand(2, 3, 64, 64), Crops((64, 64), ((0, 2), (1, 1)), 2)
    _, x_hat, _ = trained.training_loss(x, crops.pixels(x), crops)
    torch.testing.assert_close(x_hat, trained.net.enhance(crops.pixels(trained.net.compression(x)["x_mid"])))
    assert x_hat.shape == (2, 3, 32, 32)


def test_only_the_enhancer_is_ever_in_training_mode() -> None:
    trained = module()
    for mode in (True, False, True):
        trained.train(mode)
        modes = {name: child.training for name, child in trained.net.named_children()}
        assert modes.pop("enhancer") is mode
        assert not trained.net.training and not any(modes.values())


def test_an_enhancer_is_needed() -> None:
    net = build_model({**CONFIG, "enhancer": None})
    with pytest.raises(ConfigError, match="enhancer"):
        EnhancementModule(net, RateDistortionLoss(0.1), constant(), lr=1e-3)
