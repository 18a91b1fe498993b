"""What a model is trained for: the rate-distortion loss of one image (paper, Eq. 7), and MS-SSIM with a gradient.

    lambda / (Wy Hy 256) * R + (1 - lambda) / 1000 * D

R is the rate of the latents; D is the mean squared error on the 0..255 scale, or 3000 (1 - MS-SSIM). A training adds
batches, crops and sampled positions to it (:mod:`jointiq.training.modules.losses`); an encoder that refines the latents
of a picture lowers it with R over the picture's own pixels (:mod:`jointiq.coding.refine`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pytorch_msssim.ssim import _ssim
from torch import Tensor
from torch.nn import functional as F

from jointiq.configs import DISTORTIONS, RATE_UNITS
from jointiq.errors import ConfigError
from jointiq.layers.gains import log_spaced

_PEAK = 255.0
_MS_SSIM_SCALE = 3000
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5


@dataclass(frozen=True)
class Objective:
    """The loss that a model was trained with, as far as it is about single images.

    Attributes:
        lmbda: between 0 and 1.
        distortion: ``mse`` or ``ms_ssim``.
        rate_unit: of R, ``nats`` or ``bits``.
        lmbda_range: of a model of all rates: lambda at the lowest and at the highest quality.

    Raises:
        ConfigError: another distortion or unit.
    """

    lmbda: float
    distortion: str = "mse"
    # The defaults are those of the configuration: files from before these two were recorded do not say them.
    rate_unit: str = "nats"
    lmbda_range: tuple[float, float] = (0.6, 0.008)

    def __post_init__(self) -> None:
        for key, value, allowed in (
            ("distortion.name", self.distortion, DISTORTIONS), ("distortion.rate_unit", self.rate_unit, RATE_UNITS),
        ):  # fmt: skip
            if value not in allowed:
                raise ConfigError(key, value, allowed)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Objective | None:
        """Read it from a checkpoint, or from an export's metadata (:meth:`texts`); None if that has none.

        Raises:
            ValueError, TypeError: values that are none.
        """
        if "lmbda" not in stored:
            return None
        made = cls(float(stored["lmbda"]))
        ends = stored.get("lmbda_range", made.lmbda_range)
        first, last = json.loads(ends) if isinstance(ends, str) else ends
        return cls(
            made.lmbda,
            str(stored.get("distortion", made.distortion)),
            str(stored.get("rate_unit", made.rate_unit)),
            (float(first), float(last)),
        )

    def texts(self) -> dict[str, str]:
        """Return it as metadata of an export."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in asdict(self).items()}

    def lambda_at(self, quality: float | None) -> float:
        """Return lambda, of a model of all rates at one of its qualities."""
        return self.lmbda if quality is None else log_spaced(self.lmbda_range, quality)

    @property
    def rate_scale(self) -> float:
        """A nat in units of R."""
        return 1.0 if self.rate_unit == "nats" else 1 / math.log(2)

    def nats_weight(self, quality: float | None, pixels: int) -> float:
        """Return what a nat of an image's rate counts; ``pixels`` are its own, without those that padding adds."""
        return self.lambda_at(quality) * self.rate_scale / pixels

    def distortion_weight(self, quality: float | None) -> float:
        """Return what :func:`image_distortion` counts."""
        return (1 - self.lambda_at(quality)) / 1000


def image_distortion(x_hat: Tensor, x: Tensor, kind: str) -> Tensor:
    """Return D of every image, (B,), of two batches (B, 3, H, W) in [0, 1]."""
    x_hat, x = x_hat.float() * _PEAK, x * _PEAK
    if kind == "mse":
        return (x_hat - x).square().flatten(1).mean(1)
    return _MS_SSIM_SCALE * (1 - ms_ssim(x_hat, x))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the MS-SSIM of every image, (B,), of two batches (B, 3, H, W) on the 0..255 scale, H and W >= 16.

    It is differentiable, and equals :func:`jointiq.evaluation.metrics.ms_ssim`, which is measured and logged, where
    both sides exceed 160 pixels. For smaller images, where that is undefined, the window shrinks at each scale to
    min(11, side) and its sigma in proportion: the rule of the metric's authors. Contrast terms are kept above zero,
    because the root of zero has no gradient.
    """
    terms = []
    for level in range(len(_SCALE_WEIGHTS)):
        size = min(_WINDOW, *x.shape[-2:])
        window = _gaussian_window(size, _SIGMA * size / _WINDOW, x)
        ssim, contrast = _ssim(x, y, _PEAK, window.repeat(x.shape[1], 1, 1, 1), size_average=False)
        if level == len(_SCALE_WEIGHTS) - 1:
            terms.append(ssim)
        else:
            terms.append(contrast)
            padding = [x.shape[-2] % 2, x.shape[-1] % 2]
            x, y = (F.avg_pool2d(image, kernel_size=2, padding=padding) for image in (x, y))
    weights = x.new_tensor(_SCALE_WEIGHTS).view(-1, 1, 1)
    return (torch.stack(terms).clamp(min=1e-6) ** weights).prod(dim=0).mean(dim=1)


def _gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    return window / window.sum()
