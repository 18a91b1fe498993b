"""The loss against hand calculations, MS-SSIM against pytorch-msssim and the definition on small patches."""

from __future__ import annotations

import math

import pytest
import pytorch_msssim
import torch

from jointiq.models.objective import ms_ssim
from jointiq.training.modules.losses import RateDistortionLoss


def output(x: torch.Tensor, error: float, y: float, z: float) -> dict:
    """Every latent of y (2 channels) costs ``y`` nats, every one of z (1 channel) ``z`` nats."""
    images, _, height, width = x.shape
    return {
        "x_hat": x + error,
        "log_likelihoods": {
            "y": torch.full((images, 2, height // 16, width // 16), -y),
            "z": torch.full((images, 1, height // 64, width // 64), -z),
        },
    }


@pytest.mark.parametrize(("unit", "factor"), [("nats", 1.0), ("bits", 1 / math.log(2))])
def test_loss_is_eq_7(unit: str, factor: float) -> None:
    x = torch.full((3, 3, 64, 128), 0.25)
    terms = RateDistortionLoss(0.2, "mse", unit)(output(x, 2 / 255, 0.7, 1.5), x)
    # 4 x 8 positions of y with 2 channels, 1 x 2 of z with 1.
    nats = 4 * 8 * 2 * 0.7 + 2 * 1.5
    expected = 0.2 / (8 * 4 * 256) * nats * factor + 0.8 / 1000 * 4.0
    assert terms.loss.item() == pytest.approx(expected, rel=1e-5)
    assert terms.bpp_y.item() == pytest.approx(4 * 8 * 2 * 0.7 / math.log(2) / (64 * 128), rel=1e-5)
    assert terms.bpp.item() == pytest.approx(nats / math.log(2) / (64 * 128), rel=1e-5)


def test_ms_ssim_loss() -> None:
    x = torch.rand(2, 3, 192, 192)
    out = output(x, 0.0, 0.0, 0.0)
    out["x_hat"] = (x + 0.1 * torch.randn_like(x)).requires_grad_()
    terms = RateDistortionLoss(0.5, "ms_ssim")(out, x)
    quality = pytorch_msssim.ms_ssim(out["x_hat"] * 255, x * 255, data_range=255)
    assert terms.loss.item() == pytest.approx(0.5 / 1000 * 3000 * (1 - quality.item()), rel=1e-3)
    terms.loss.backward()
    assert out["x_hat"].grad.isfinite().all()


@pytest.mark.parametrize("size", [(176, 176), (161, 203)])
def test_ms_ssim_is_the_librarys_on_large_images(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) * 255
    y = (x + 30 * torch.randn_like(x)).clamp(0, 255)
    expected = pytorch_msssim.ms_ssim(x, y, data_range=255, size_average=False)
    torch.testing.assert_close(ms_ssim(x, y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [16, 17, 96, 128])
def test_ms_ssim_on_small_patches(side: int) -> None:
    x = torch.rand(2, 3, side, side) * 255
    worse = (x + 60 * torch.randn_like(x)).clamp(0, 255)
    better = (x + 5 * torch.randn_like(x)).clamp(0, 255)
    assert torch.allclose(ms_ssim(x, x), torch.ones(2), atol=1e-4)
    assert (ms_ssim(x, better) > ms_ssim(x, worse)).all()


def test_ms_ssim_has_a_gradient_where_contrast_is_opposite() -> None:
    x = torch.rand(1, 3, 128, 128) * 255
    y = (255 - x).requires_grad_()
    ms_ssim(x, y).sum().backward()
    assert y.grad is not None and y.grad.isfinite().all()


def sampled(positions: int | str, distortion: str = "mse") -> RateDistortionLoss:
    return RateDistortionLoss(0.2, distortion, "nats", positions)


def uneven(images: int = 2) -> tuple[torch.Tensor, dict]:
    """Images of 4 x 8 positions of y, each position with a rate of its own, that ask for a gradient."""
    x = torch.full((images, 3, 64, 128), 0.25)
    out = output(x, 0.0, 0.0, 1.5)
    rates = -torch.arange(1.0, images * 2 * 32 + 1).view(images, 2, 4, 8) / 10
    out["log_likelihoods"]["y"] = rates.requires_grad_()
    return x, out


def test_the_rate_of_drawn_positions_is_the_whole_on_average() -> None:
    torch.manual_seed(0)
    x, out = uneven()
    whole = sampled("all")(out, x)
    losses = torch.stack([sampled(8)(out, x).loss.detach() for _ in range(3000)])
    assert losses.mean().item() == pytest.approx(whole.loss.item(), rel=0.01)
    assert losses.std() > 0.01 * whole.loss
    assert sampled(8)(out, x).bpp_y == whole.bpp_y


def test_drawn_positions_are_whole_columns_of_channels_and_differ() -> None:
    x, out = uneven()
    y = out["log_likelihoods"]["y"]
    (gradient,) = torch.autograd.grad(sampled(8)(out, x).loss, y)
    chosen = gradient != 0
    assert (chosen.flatten(2).sum(2) == 8).all()
    assert torch.equal(chosen[:, 0], chosen[:, 1])
    assert gradient[chosen].unique().numel() == 1
    (again,) = torch.autograd.grad(sampled(8)(out, x).loss, y)
    assert not torch.equal(again != 0, chosen)
    assert not torch.equal(chosen[0], chosen[1])


def test_all_positions_count_in_validation_and_where_there_are_fewer() -> None:
    x, out = uneven()
    whole = sampled("all")(out, x).loss
    assert sampled(32)(out, x).loss == whole == sampled(1000)(out, x).loss
    with torch.no_grad():
        out["log_likelihoods"]["y"] = out["log_likelihoods"]["y"].detach()
        assert sampled(3)(out, x).loss == whole


def test_every_image_counts_by_the_lambda_of_its_quality() -> None:
    x = torch.full((3, 3, 64, 128), 0.25)
    out = output(x, 0.0, 0.7, 1.5)
    out["x_hat"] = x + torch.tensor([1.0, 2.0, 4.0])[:, None, None, None] / 255
    out["quality"] = torch.tensor([1.0, 50.5, 100.0])
    terms = RateDistortionLoss(0.2, ends=(0.5, 0.005), balance=0.3)(out, x)
    rate = (4 * 8 * 2 * 0.7 + 2 * 1.5) / (4 * 8 * 256)
    expected = 0.0
    for lmbda, mse in ((0.5, 1.0), (0.05, 4.0), (0.005, 16.0)):
        expected += (lmbda / 0.05) ** -0.3 * (lmbda * rate + (1 - lmbda) / 1000 * mse) / 3
    assert terms.loss.item() == pytest.approx(expected, rel=1e-4)
    assert terms.bpp.item() == pytest.approx(rate * 256 * 32 / math.log(2) / (64 * 128), rel=1e-4)


def test_a_batch_of_one_quality_has_the_loss_of_its_lambda() -> None:
    x = torch.rand(2, 3, 192, 192)
    out = output(x, 0.0, 0.7, 1.5)
    out["x_hat"] = x + 0.1 * torch.randn_like(x)
    for distortion in ("mse", "ms_ssim"):
        single = RateDistortionLoss(0.06, distortion)(out, x).loss
        of_range = RateDistortionLoss(0.5, distortion, ends=(0.6, 0.006), balance=0.0)
        assert of_range({**out, "quality": torch.full((2,), 50.5)}, x).loss.item() == pytest.approx(single.item())
