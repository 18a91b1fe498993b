"""The training loss (paper, Eq. 7) of batches of patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jointiq.bitstream.container import HIGHEST, LOWEST
from jointiq.data import LATENT
from jointiq.models.objective import Objective, image_distortion
from jointiq.training.modules.crops import Crops
from jointiq.training.validation import ALL_POSITIONS

# Eq. 7 divides the rate by the pixels one latent position covers.
_PIXELS_PER_LATENT = 256


@dataclass(frozen=True)
class LossTerms:
    """Means over a batch, scalars.

    Attributes:
        loss: with its gradient.
        bpp_y, bpp_z: bits per pixel of y and of all side information.
    """

    loss: Tensor
    bpp_y: Tensor
    bpp_z: Tensor

    @property
    def bpp(self) -> Tensor:
        """Bits per pixel of y and the side information together."""
        return self.bpp_y + self.bpp_z


class RateDistortionLoss:
    """lambda / (Wy Hy 256) * R + (1 - lambda) / 1000 * D (paper, Eq. 7).

    R is the rate of one image's y and z; D is the mean squared error on the 0..255 scale, or 3000 (1 - MS-SSIM).

    In a model of all rates, lambda follows from the quality at which each image is coded. The loss of the image is
    divided by lambda^balance. With Eq. 7 itself (balance 0) the low rates dominate the training; with
    R + (1 - lambda) / (1000 lambda) D (balance 1) the high rates do.

    Args:
        lmbda: between 0 and 1.
        distortion: ``mse`` or ``ms_ssim``.
        rate_unit: unit of R. The paper does not name it; ``nats`` is inferred from its authors' published curves.
        rate_positions: positions of each y, drawn anew at each step, from whose rate the loss estimates the whole,
            without bias (Lee 2019, section 4.1); or ``all``.
        ends: lambda at the lowest and at the highest quality of a model of all rates, log-spaced between.
        balance: 0 to 1; see above.
    """

    def __init__(
        self,
        lmbda: float,
        distortion: str = "mse",
        rate_unit: str = "nats",
        rate_positions: int | str = "all",
        ends: Sequence[float] | None = None,
        balance: float = 0.5,
    ) -> None:
        self.lmbda = lmbda
        self.ends = ends
        self.balance = balance
        self.distortion = distortion
        self.rate_unit = rate_unit
        self.rate_scale = self.objective.rate_scale
        self.rate_positions = math.inf if rate_positions == ALL_POSITIONS else float(rate_positions)

    @property
    def objective(self) -> Objective:
        """What it is for a single image, which a trained model's file says."""
        known = Objective(float(self.lmbda), self.distortion, self.rate_unit)
        return known if self.ends is None else replace(known, lmbda_range=(self.ends[0], self.ends[1]))

    def __call__(self, output: Mapping[str, Any], x: Tensor, crops: Crops | None = None) -> LossTerms:
        """Return the loss of a model's ``output`` (``x_hat``, ``log_likelihoods``) for images ``x`` in [0, 1].

        With ``crops``, ``x_hat`` and ``x`` are those of the crops, and so is the rate of y (:meth:`rate_terms`). An
        ``auxiliary`` loss in the output, in nats per pixel, is weighted like the rate.
        """
        size = (x.shape[-2], x.shape[-1]) if crops is None else crops.size
        quality = output.get("quality")
        terms = self.rate_terms(output["log_likelihoods"], size, crops, quality)
        distortion = self.distortion_term(output["x_hat"], x, quality)
        auxiliary = self.lmbda * self.rate_scale * output.get("auxiliary", 0.0)
        return replace(terms, loss=terms.loss + distortion + auxiliary)

    def lambdas(self, quality: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """Return lambda and the weight of the loss: (B,) by each image's ``quality``, or one number for all."""
        if quality is None or self.ends is None:
            return self.lmbda, 1.0
        first, last = map(math.log, self.ends)
        logs = first + (last - first) * (quality - LOWEST) / (HIGHEST - LOWEST)
        # The weight is 1 in the middle of the range.
        return logs.exp(), ((first + last) / 2 - logs).mul(self.balance).exp()

    def rate_terms(
        self,
        log_likelihoods: Mapping[str, Tensor],
        size: tuple[int, int],
        crops: Crops | None = None,
        quality: Tensor | None = None,
    ) -> LossTerms:
        """Return the rate terms of images of ``size`` (height, width in pixels); ``loss`` is lambda / (Wy Hy 256) * R.

        All latents but ``y`` are side information and count as z.

        With ``crops``, the rate of y is that of the latents in the crops, divided by their number of positions. The
        rate of z belongs to no one place: it counts whole, divided by the number of all positions (our choice).

        ``rate_positions`` affects the loss alone, and only where a gradient is needed; bpp_y counts every position.
        """
        y = log_likelihoods["y"]
        side = [value for key, value in log_likelihoods.items() if key != "y"]
        seen_y = y if crops is None else crops.latents(y)
        pixels = size[0] * size[1]
        seen_pixels = pixels if crops is None else (crops.side * LATENT) ** 2
        nats_y = _nats(seen_y)
        nats_z = sum((_nats(value) for value in side), start=torch.zeros_like(nats_y))
        per_latent = self._counted(seen_y, nats_y) / _area(seen_y) + nats_z / _area(y)
        lmbda, factor = self.lambdas(quality)
        rate = (factor * lmbda * per_latent).mean() * (self.rate_scale / _PIXELS_PER_LATENT)
        bpp_y, bpp_z = nats_y.mean() / (math.log(2) * seen_pixels), nats_z.mean() / (math.log(2) * pixels)
        return LossTerms(rate, bpp_y.detach(), bpp_z.detach())

    def _counted(self, y: Tensor, nats: Tensor) -> Tensor:
        """Return the rate of y (B, M, h, w) for the loss, (B,): ``nats``, or its estimate from ``rate_positions``."""
        area = _area(y)
        if not y.requires_grad or self.rate_positions >= area:
            return nats
        drawn = torch.rand(y.shape[0], 1, area, device=y.device).argsort(2)[..., : int(self.rate_positions)]
        values = y.flatten(2).gather(2, drawn.expand(-1, y.shape[1], -1))
        return _nats(values) * (area / drawn.shape[2])

    def distortion_term(self, x_hat: Tensor, x: Tensor, quality: Tensor | None = None) -> Tensor:
        """Return (1 - lambda) / 1000 * D, a scalar, of two batches (B, 3, H, W) in [0, 1]."""
        lmbda, factor = self.lambdas(quality)
        return (factor * (1 - lmbda) * image_distortion(x_hat, x, self.distortion)).mean() / 1000


def _nats(log_likelihoods: Tensor) -> Tensor:
    return -log_likelihoods.float().flatten(1).sum(1)


def _area(x: Tensor) -> int:
    return x.shape[-2] * x.shape[-1]
