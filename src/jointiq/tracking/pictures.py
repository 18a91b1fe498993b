"""Log pictures in W&B: validation images with maps of their bits, and the weights psi of the global context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from jointiq.errors import check_whole
from jointiq.evaluation.context_weights import effective_positions, weight_maps
from jointiq.evaluation.metrics import batch_psnr
from jointiq.layers.block_context import BlockContext
from jointiq.layers.global_context import GlobalContext

_ERROR_GAIN = 8
#: Side in pixels of one offset in a picture of psi.
_CELL = 16

#: Pictures (H, W, 3), 8 bits, by caption.
Pictures = dict[str, NDArray[np.uint8]]


class ImagePanels(Callback):
    """Log pictures of the first validation images with loggers that take images (W&B's).

    Args:
        images: number of validation images.
        side: longest side of a picture in pixels; larger ones are scaled down.
        every: log at every ``every``-th validation from the first, and at the last of the training.

    Raises:
        ConfigError: a value that is not a whole number in its range.
    """

    def __init__(self, images: int = 1, side: int = 384, every: int = 5) -> None:
        for key, value, smallest in (("images", images, 0), ("side", side, 16), ("every", every, 1)):
            check_whole(f"callbacks.panels.{key}", value, smallest)
        self.images, self.side, self.every = images, side, every

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int, *args: Any
    ) -> None:
        """Log the pictures of one image from the output that the validation step has computed."""
        if batch_idx < self.images and is_due(trainer, self.every):
            net: Any = pl_module.net
            pictures = partial(panels, batch, outputs, self.side, net.PADS_BOTH_SIDES)
            log_pictures(trainer, f"val/image_{batch_idx}", pictures)


class PsiMaps(Callback):
    """Log pictures of psi with loggers that take images (W&B's), if the model has a global context.

    Args:
        channels: number of channels, always the same ones, evenly spread over all.
        every: log at every ``every``-th validation from the first, and at the last of the training.

    Raises:
        ConfigError: a value that is not a whole number in its range.
    """

    def __init__(self, channels: int = 8, every: int = 5) -> None:
        for key, value, smallest in (("channels", channels, 0), ("every", every, 1)):
            check_whole(f"callbacks.psi.{key}", value, smallest)
        self.channels, self.every = channels, every

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the pictures of the current weights (with ``optim.ema_decay``: of their mean)."""
        net: Any = pl_module.net
        module = getattr(net.entropy_model, "global_context", None)
        if isinstance(module, GlobalContext | BlockContext) and self.channels and is_due(trainer, self.every):
            log_pictures(trainer, "psi", lambda: psi_pictures(module, self.channels))


def is_due(trainer: Trainer, every: int) -> bool:
    """Return whether a validation is an ``every``-th from the first, or the training's last, and was not interrupted.

    The last one runs at the last step or, where a time cap has ended the training, then or after it.
    """
    if trainer.interrupted:
        return False
    # Not counted, so that a continued run shows what an unbroken one shows.
    earlier = trainer.global_step // int(trainer.val_check_interval) - 1
    is_last = trainer.global_step == trainer.max_steps or trainer.should_stop
    return earlier % every == 0 or is_last or trainer.state.fn == TrainerFn.VALIDATING


def log_pictures(trainer: Trainer, key: str, make: Callable[[], Pictures]) -> None:
    """Log the pictures that ``make`` returns, in the row of the validation's means, if a logger takes pictures."""
    takers: list[Any] = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
    if not takers or not trainer.is_global_zero:
        return
    pictures = make()
    for logger in takers:
        logger.log_image(key, list(pictures.values()), step=row(trainer), caption=list(pictures))


def row(trainer: Trainer) -> int:
    """Return the step of the row with the validation's means, which Lightning numbers by the index of the last step."""
    return max(trainer.global_step - 1, 0)


def panels(x: Tensor, output: Mapping[str, Any], side: int, centred: bool = False) -> Pictures:
    """Return pictures by caption: original, output of I and of Q, error, and a bit map of each latent.

    Args:
        x: one image, (1, 3, H, W) in [0, 1].
        output: the model's output for it.
        side: longest side of a picture in pixels.
        centred: whether the image was padded equally on both sides, and not only at its end.
    """
    x_hat, x_mid = (output[key].float().clamp(0, 1) for key in ("x_hat", "x_mid"))
    pictures = {
        "original": _picture(x, side),
        f"I, {float(batch_psnr(x, x_mid)):.2f} dB": _picture(x_mid, side),
        f"Q, {float(batch_psnr(x, x_hat)):.2f} dB": _picture(x_hat, side),
        f"error of Q, times {_ERROR_GAIN}": _picture((x - x_hat).abs().mul(_ERROR_GAIN).clamp(max=1), side),
    }
    for name, log_likelihoods in sorted(output["log_likelihoods"].items(), key=lambda item: item[0] != "y"):
        bits = -log_likelihoods.float().sum(1)[0] / math.log(2)
        scale = max(float(bits.max()), 1e-9)
        bpp = float(bits.sum()) / (x.shape[-2] * x.shape[-1])
        caption = f"bits of {name}, {bpp:.3f} bpp; white = {scale:.3g} a position"
        pictures[caption] = _picture(_like(bits / scale, x, centred), side)
    return pictures


def _like(values: Tensor, x: Tensor, centred: bool) -> Tensor:
    """Return values on a latent's grid, (h, w), as a grey picture of the size of ``x``, (1, 3, H, W)."""
    size = (x.shape[-2], x.shape[-1])
    # Pixels of a side of one position: latents are smaller by a power of two.
    stride = 1
    while any(cells * stride < length for cells, length in zip(values.shape, size, strict=True)):
        stride *= 2
    large = values.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    top, left = ((have - want) // 2 if centred else 0 for have, want in zip(large.shape, size, strict=True))
    return large[top : top + size[0], left : left + size[1]].clamp(0, 1).expand(1, 3, -1, -1)


def _picture(x: Tensor, side: int) -> NDArray[np.uint8]:
    factor = side / max(x.shape[-2:])
    if factor < 1:
        size = [max(1, round(length * factor)) for length in x.shape[-2:]]
        x = F.interpolate(x, size=size, mode="area")
    picture: NDArray[np.uint8] = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return picture


def psi_pictures(module: GlobalContext | BlockContext, channels: int) -> dict[str, NDArray[np.uint8]]:
    """Return 8-bit pictures (H, W, 3) by caption: softmax(psi) of up to ``channels`` channels, evenly spread over all.

    The current position is at the middle of the last row; the outermost cells stand for all positions beyond them. In
    the order ``quarters`` the cells are blocks, the current one in the middle. Dark to bright is zero to the channel's
    largest weight; white is never known. The caption has that weight and the effective number of positions or blocks
    (the exponential of the weights' entropy).
    """
    import matplotlib

    maps = weight_maps(module)
    spread = effective_positions(maps)
    count, unit = int(np.isfinite(maps[0]).sum()), "blocks" if isinstance(module, BlockContext) else "positions"
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(channels, len(maps))).round().astype(int))
    colours: Any = matplotlib.colormaps["viridis"].with_extremes(bad=(1.0, 1.0, 1.0))
    pictures = {}
    for channel in chosen:
        largest = float(np.nanmax(maps[channel]))
        cells = colours(np.ma.masked_invalid(maps[channel] / largest), bytes=True)[..., :3]
        caption = f"channel {channel}: {spread[channel]:.1f} of {count} {unit}, largest weight {largest:.3f}"
        pictures[caption] = np.ascontiguousarray(cells.repeat(_CELL, 0).repeat(_CELL, 1))
    return pictures
