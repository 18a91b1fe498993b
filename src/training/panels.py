"""Pictures of validation images for W&B: original, I's and Q's output, the error and where the bits went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from src.errors import ConfigError
from src.training.losses import psnr

_ERROR_GAIN = 8


class ImagePanels(Callback):
    """Gives loggers that take images (W&B's) five pictures of the first validation images; others get nothing.

    Args:
        images: how many validation images; 0 is none.
        side: longest side of a picture in pixels; larger ones are scaled down.
        every: at each so-many-th validation, from the first, and at the last of the training.

    Raises:
        ConfigError: a value that is not a whole number in its range.
    """

    def __init__(self, images: int = 1, side: int = 384, every: int = 5) -> None:
        for key, value, smallest in (("images", images, 0), ("side", side, 16), ("every", every, 1)):
            if type(value) is not int or value < smallest:
                raise ConfigError(f"callbacks.panels.{key}", value, f"a whole number from {smallest} up")
        self.images, self.side, self.every = images, side, every
        self._validations = 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int, *args: Any
    ) -> None:
        """Log the pictures of one image from the output that the validation step has computed."""
        due = self._validations % self.every == 0 or trainer.global_step == trainer.max_steps
        if due and batch_idx < self.images and trainer.is_global_zero:
            # In the row of the validation's means, which Lightning numbers by the last step's index.
            step = max(trainer.global_step - 1, 0)
            for logger in filter(_takes_images, trainer.loggers):
                _log(logger, panels(batch, outputs, self.side), f"val/image_{batch_idx}", step)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count."""
        self._validations += 1


@rank_zero_only
def _log(logger: Any, pictures: Mapping[str, NDArray[np.uint8]], key: str, step: int) -> None:
    logger.log_image(key, list(pictures.values()), step=step, caption=list(pictures))


def _takes_images(logger: Logger) -> bool:
    return hasattr(logger, "log_image")


def panels(x: Tensor, output: Mapping[str, Any], side: int) -> dict[str, NDArray[np.uint8]]:
    """Five 8-bit pictures (H, W, 3) by caption, of one image (1, 3, H, W) in [0, 1] and the model's output for it."""
    x_hat, x_mid = (output[key].float().clamp(0, 1) for key in ("x_hat", "x_mid"))
    bits = {key: -value.float().sum(1, keepdim=True) / math.log(2) for key, value in output["log_likelihoods"].items()}
    bpp = sum(float(value.sum()) for value in bits.values()) / (x.shape[-2] * x.shape[-1])
    bits_y = bits["y"][0, 0]
    scale = max(float(bits_y.max()), 1e-9)
    return {
        "original": _picture(x, side),
        f"I, {float(psnr(x, x_mid)):.2f} dB": _picture(x_mid, side),
        f"Q, {float(psnr(x, x_hat)):.2f} dB": _picture(x_hat, side),
        f"error of Q, times {_ERROR_GAIN}": _picture((x - x_hat).abs().mul(_ERROR_GAIN).clamp(max=1), side),
        f"bits of y, white = {scale:.0f} a position; y and z {bpp:.3f} bpp": _picture(_like(bits_y / scale, x), side),
    }


def _like(values: Tensor, x: Tensor) -> Tensor:
    """Values of y's grid, (h, w), as a grey picture of the size of ``x``."""
    large = values.repeat_interleave(16, 0).repeat_interleave(16, 1)[: x.shape[-2], : x.shape[-1]]
    return large.clamp(0, 1).expand(1, 3, -1, -1)


def _picture(x: Tensor, side: int) -> NDArray[np.uint8]:
    factor = side / max(x.shape[-2:])
    if factor < 1:
        size = [max(1, round(length * factor)) for length in x.shape[-2:]]
        x = F.interpolate(x, size=size, mode="area")
    picture: NDArray[np.uint8] = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return picture
