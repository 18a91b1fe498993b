"""Image quality between two 8-bit RGB images, and the mean over a set of images.

The field's convention, and ours: quality is measured per image on the clamped, rounded 8-bit picture and then averaged
over the images. (Pooling the squared error over all images first gives another, usually lower, PSNR.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

PEAK = 255.0
#: Five scales with an 11-tap window need a smaller side above (11 - 1) * 2**4 pixels.
MS_SSIM_SIDE = 160
#: Identical pictures have an infinite PSNR; this cap keeps a mean over images finite.
PSNR_CAP = 100.0


def _check(original: Image, decoded: Image) -> None:
    for image in (original, decoded):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a uint8 array (height, width, 3), got {image.dtype} {image.shape}")
    if original.shape != decoded.shape:
        raise ValueError(f"the images differ in size: {original.shape} and {decoded.shape}")


def psnr(original: Image, decoded: Image) -> float:
    """Peak signal-to-noise ratio in dB over all RGB samples of two uint8 images (H, W, 3), at most ``PSNR_CAP``."""
    _check(original, decoded)
    error = original.astype(np.float64) - decoded
    mse = float(np.mean(error * error))
    if mse == 0.0:
        return PSNR_CAP
    return min(PSNR_CAP, 10.0 * math.log10(PEAK * PEAK / mse))


def ms_ssim(original: Image, decoded: Image) -> float | None:
    """MS-SSIM (linear, at most 1) of two uint8 images (H, W, 3), or None where the smaller side is <= 160 pixels."""
    _check(original, decoded)
    if min(original.shape[:2]) <= MS_SSIM_SIDE:
        return None
    # Imported late: what only compares numbers does not wait for PyTorch.
    import pytorch_msssim
    import torch

    planes = [torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None] for image in (original, decoded)]
    with torch.inference_mode():
        return float(pytorch_msssim.ms_ssim(*planes, data_range=PEAK))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM in dB, ``-10 log10(1 - value)``; infinite for 1. For a set of images pass their *mean* MS-SSIM."""
    return math.inf if value >= 1.0 else -10.0 * math.log10(1.0 - value)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean over images of the values that exist; None where none does (every image too small for MS-SSIM)."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
