"""Crops of patches: places, and the loss of a training on crops against one assembled by hand, gradients included."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from jointiq.models import build_model
from jointiq.models.objective import ms_ssim
from jointiq.training.modules.crops import Crops
from jointiq.training.modules.losses import RateDistortionLoss

CONFIG: dict[str, Any] = {
    "name": "jointiq", "N": 4, "M": 4, "G": 2, "min_known": 4,
    "enhancer": {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4},
}  # fmt: skip


def cropped(net: Any, x: torch.Tensor, crops: Crops) -> dict[str, Any]:
    """I on the whole patches, Q on their crops."""
    output = net.compression(x)
    return {**output, "x_hat": net.enhance(crops.pixels(output["x_mid"]))}


def test_places_are_on_the_grid_and_all_of_them_occur() -> None:
    torch.manual_seed(0)
    crops = Crops.random(2000, (256, 160), 96)
    assert crops.side == 6 and len(crops.corners) == 2000
    assert {top for top, _ in crops.corners} == set(range(11))
    assert {left for _, left in crops.corners} == set(range(5))
    assert Crops.random(3, (48, 48), 48).corners == ((0, 0),) * 3


def test_pixels_and_latents_are_the_same_places() -> None:
    y = torch.arange(2 * 16 * 16.0).view(2, 1, 16, 16)
    x = y.repeat_interleave(16, 2).repeat_interleave(16, 3)
    crops = Crops((256, 256), ((3, 10), (0, 7)), 6)
    assert crops.pixels(x).shape == (2, 1, 96, 96)
    assert torch.equal(crops.pixels(x)[..., ::16, ::16], crops.latents(y))
    assert torch.equal(crops.latents(y)[0], y[0, :, 3:9, 10:16])


@pytest.mark.parametrize("distortion", ["mse", "ms_ssim"])
def test_loss_and_gradient_against_a_hand_computation(distortion: str) -> None:
    """Whole 128 patch through I, Q on 48x48, y of the 3x3 over 9 * 256, z whole over 128 * 128."""
    torch.manual_seed(1)
    net = build_model(CONFIG).eval()
    with torch.no_grad():
        net.g_a.convs[-1].weight.mul_(40)
    x = torch.rand(2, 3, 128, 128)
    crops = Crops((128, 128), ((1, 2), (5, 0)), 3)
    lmbda = 0.3
    terms = RateDistortionLoss(lmbda, distortion)(cropped(net, x, crops), crops.pixels(x), crops)
    weights = list(net.parameters())
    gradient = torch.autograd.grad(terms.loss, weights)

    y, z = (net.analyse(x)[name] for name in ("y", "z"))
    y_hat = y + (y.round() - y).detach()
    z_hat = z + (z.round() - z).detach()
    assert y_hat.abs().max() >= 1
    logs = net.log_likelihoods({"y": y_hat, "z": z_hat})  # contexts of the whole patch
    mid = net.g_s(y_hat, (128, 128))
    inside_y = logs["y"][0, :, 1:4, 2:5].sum() + logs["y"][1, :, 5:8, 0:3].sum()
    rate = -inside_y / 2 / (9 * 256) - logs["z"].sum() / 2 / (128 * 128)
    seen = torch.stack([mid[0, :, 16:64, 32:80], mid[1, :, 80:128, 0:48]])
    target = torch.stack([x[0, :, 16:64, 32:80], x[1, :, 80:128, 0:48]])
    output = (net.enhancer(seen) + 1) / 2
    if distortion == "mse":
        distance = ((output - target) * 255).square().mean()
    else:
        distance = 3000 * (1 - ms_ssim(output * 255, target * 255).mean())
    by_hand = lmbda * rate + (1 - lmbda) / 1000 * distance
    torch.testing.assert_close(terms.loss, by_hand)
    torch.testing.assert_close(gradient, torch.autograd.grad(by_hand, weights), rtol=1e-3, atol=1e-5)
    bits = -inside_y / 2 / math.log(2)
    torch.testing.assert_close(terms.bpp_y, (bits / 48**2).detach())
    assert terms.bpp_z.item() == pytest.approx(-logs["z"].sum().item() / 2 / math.log(2) / 128**2, rel=1e-4)


def test_a_crop_of_everything_is_no_crop() -> None:
    net = build_model(CONFIG).eval()
    x = torch.rand(1, 3, 64, 64)
    loss = RateDistortionLoss(0.1)
    crops = Crops((64, 64), ((0, 0),), 4)
    torch.testing.assert_close(loss(cropped(net, x, crops), crops.pixels(x), crops).loss, loss(net(x), x).loss)
