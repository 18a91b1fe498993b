"""Metrics against hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jointiq.evaluation.metrics import DB_CAP, batch_ms_ssim, batch_psnr, mean, ms_ssim, ms_ssim_db, psnr


def flat(level: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def photograph(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(40, 215, (8, 8, 3))
    return np.kron(coarse, np.ones((height // 8 + 1, width // 8 + 1, 1)))[:height, :width].astype(np.uint8)


def test_psnr_of_a_known_error() -> None:
    # Every sample is 5 off: MSE 25. Also across 128, where uint8 subtraction would wrap.
    assert psnr(flat(130), flat(125)) == pytest.approx(10 * math.log10(255**2 / 25), abs=1e-12)
    assert psnr(flat(125), flat(130)) == pytest.approx(10 * math.log10(255**2 / 25), abs=1e-12)


def test_psnr_pools_the_three_channels() -> None:
    other = flat(100)
    other[..., 0] += 3
    assert psnr(flat(100), other) == pytest.approx(10 * math.log10(255**2 / 3), abs=1e-12)


def test_psnr_of_identical_images_is_capped() -> None:
    assert psnr(flat(7), flat(7)) == DB_CAP


def test_mean_psnr_is_not_the_psnr_of_the_mean_error() -> None:
    values = [psnr(flat(100), flat(101)), psnr(flat(100), flat(120))]
    pooled = 10 * math.log10(255**2 / ((1 + 400) / 2))
    averaged = mean(values)
    assert averaged == pytest.approx((48.1308036 + 22.1102037) / 2, abs=1e-6)
    assert averaged - pooled > 9


def test_sizes_and_types_must_match() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        psnr(flat(1), flat(1, 5, 6))
    with pytest.raises(ValueError, match="uint8"):
        psnr(flat(1).astype(np.float32), flat(1))


def test_ms_ssim_only_for_images_large_enough() -> None:
    image = photograph(161, 170)
    assert ms_ssim(image, image) == pytest.approx(1.0, abs=1e-6)
    assert ms_ssim(image[:160], image[:160]) is None
    noisy = np.clip(image + np.random.default_rng(1).normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    noisier = np.clip(image + np.random.default_rng(1).normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    little, much = ms_ssim(image, noisy), ms_ssim(image, noisier)
    assert little is not None and much is not None
    assert 0 < much < little < 1


@pytest.mark.parametrize("level", [0, 7, 255])
def test_ms_ssim_of_identical_images_is_never_above_one(level: int) -> None:
    for image in (flat(level, 161, 161), photograph(200, 180)):
        value = ms_ssim(image, image)
        assert value is not None and 0.99999 < value <= 1.0


def test_batches_are_measured_as_images_are() -> None:
    """What a training logs is what an evaluation of the same pictures finds."""
    original = np.stack([photograph(170, 165), photograph(170, 165)[:, ::-1]])
    decoded = np.clip(original + np.random.default_rng(2).normal(0, 9, original.shape), 0, 255).astype(np.uint8)
    x, x_hat = (torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()) / 255 for batch in (original, decoded))
    pairs = list(zip(original, decoded, strict=True))
    assert batch_psnr(x, x_hat).tolist() == pytest.approx([psnr(*pair) for pair in pairs], abs=1e-4)
    assert batch_ms_ssim(x, x_hat).tolist() == pytest.approx([ms_ssim(*pair) for pair in pairs], abs=1e-5)
    assert batch_ms_ssim(x[..., :160], x_hat[..., :160]).shape == (0,)


def test_psnr_of_a_batch_is_of_the_8_bit_picture() -> None:
    x = torch.full((2, 3, 8, 8), 100 / 255)
    x_hat = x.clone()
    x_hat[0] += 0.4 / 255  # rounds to the original
    x_hat[1] = 2.0  # clamped to 255
    values = batch_psnr(x, x_hat)
    assert values[0].item() == pytest.approx(100.0)
    assert values[1].item() == pytest.approx(20 * math.log10(255 / 155), abs=1e-4)


def test_ms_ssim_in_db() -> None:
    assert ms_ssim_db(0.99) == pytest.approx(20.0)
    assert ms_ssim_db(1.0) == ms_ssim_db(1.0 + 1e-7) == ms_ssim_db(1.0 - 1e-12) == DB_CAP
    # dB of the mean, not the mean of dB.
    assert ms_ssim_db((0.9 + 0.99) / 2) == pytest.approx(12.5964, abs=1e-4)


def test_mean_leaves_out_what_does_not_exist() -> None:
    assert mean([0.5, None, 1.0]) == 0.75
    assert mean([None, None]) is None
