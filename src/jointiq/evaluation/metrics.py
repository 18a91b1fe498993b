"""Image quality on 8-bit RGB pictures (PSNR, MS-SSIM, both in dB), and the mean over a set of images.

The field's convention, and ours: quality is measured per image on the clamped, rounded 8-bit picture and then averaged
over the images. (Pooling the squared error over all images first gives another, usually lower, PSNR.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # imported late, because comparing numbers does not need PyTorch
    from torch import Tensor

Image = NDArray[np.uint8]
_Number = TypeVar("_Number", "float", "Tensor")

PEAK = 255.0
#: Five scales with an 11-tap window need a smaller side above (11 - 1) * 2**4 pixels.
MS_SSIM_SIDE = 160
#: Largest quality in dB, because that of identical pictures is infinite, and means and files must be finite.
DB_CAP = 100.0


def decibels(error: _Number) -> _Number:
    """Return the quality in dB, -10 log10(error), at most ``DB_CAP``.

    The error is MSE / 255^2 for PSNR and 1 - MS-SSIM for MS-SSIM.
    """
    least = 10 ** (-DB_CAP / 10)
    if isinstance(error, float | int):
        return -10.0 * math.log10(max(error, least))
    return -10.0 * error.clamp(min=least).log10()


def psnr(original: Image, decoded: Image) -> float:
    """Return the PSNR in dB over all RGB samples of two uint8 images (H, W, 3), at most ``DB_CAP``."""
    _check(original, decoded)
    error = original.astype(np.float64) - decoded
    return decibels(float(np.mean(error * error)) / PEAK**2)


def batch_psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return :func:`psnr` of the 8-bit pictures of two batches (B, 3, H, W) in [0, 1], (B,)."""
    return decibels((to_8bit(x) - to_8bit(x_hat)).pow(2).mean(dim=(1, 2, 3)) / PEAK**2)


def ms_ssim(original: Image, decoded: Image) -> float | None:
    """Return the linear MS-SSIM of two uint8 images (H, W, 3); None where the smaller side is <= 160 pixels."""
    _check(original, decoded)
    if min(original.shape[:2]) <= MS_SSIM_SIDE:
        return None
    import torch

    planes = [torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None] for image in (original, decoded)]
    with torch.inference_mode():
        return float(_ms_ssim(*planes))


def batch_ms_ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return :func:`ms_ssim` of two batches as for :func:`batch_psnr`: (B,), or (0,) for images too small."""
    if min(x.shape[-2:]) <= MS_SSIM_SIDE:
        return x.new_empty(0)
    return _ms_ssim(to_8bit(x), to_8bit(x_hat))


def _ms_ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    import pytorch_msssim

    # Rounding takes identical pictures beyond 1.
    quality: Tensor = pytorch_msssim.ms_ssim(x, x_hat, data_range=PEAK, size_average=False).clamp(max=1.0)
    return quality


def ms_ssim_db(value: float) -> float:
    """Return MS-SSIM in dB, -10 log10(1 - value), at most ``DB_CAP``; for a set of images, pass the mean MS-SSIM."""
    return decibels(1.0 - value)


def to_8bit(image: Tensor) -> Tensor:
    """Return an image in [0, 1] clamped and rounded to 8 bits, as floats on the 0..255 scale."""
    return (image.clamp(0, 1) * PEAK).round()


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if all are (every image is too small for MS-SSIM)."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _check(original: Image, decoded: Image) -> None:
    for image in (original, decoded):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a uint8 array (height, width, 3), got {image.dtype} {image.shape}")
    if original.shape != decoded.shape:
        raise ValueError(f"the images differ in size: {original.shape} and {decoded.shape}")
