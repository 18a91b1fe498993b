"""Pictures of the global context's trained weights psi for W&B: where each channel looks."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from jointiq.errors import check_whole
from jointiq.layers.global_context import GlobalContext
from jointiq.studies.context_weights import effective_positions, weight_maps
from jointiq.tracking.panels import is_due, log_pictures

#: Side in pixels of one offset in a picture.
_CELL = 16


class PsiMaps(Callback):
    """Gives loggers that take images (W&B's) pictures of psi, where the model has a global context.

    Args:
        channels: how many channels, evenly spread over all and always the same ones; 0 is none.
        every: at each so-many-th validation, from the first, and at the last of the training.

    Raises:
        ConfigError: a value that is not a whole number in its range.
    """

    def __init__(self, channels: int = 8, every: int = 5) -> None:
        for key, value, smallest in (("channels", channels, 0), ("every", every, 1)):
            check_whole(f"callbacks.psi.{key}", value, smallest)
        self.channels, self.every = channels, every

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the pictures of the present weights (with averaged weights: of their mean)."""
        entropy_model: Any = pl_module.net.entropy_model  # type: ignore[union-attr]
        module = getattr(entropy_model, "global_context", None)
        if isinstance(module, GlobalContext) and self.channels and is_due(trainer, self.every):
            log_pictures(trainer, "psi", lambda: psi_pictures(module, self.channels))


def psi_pictures(module: GlobalContext, channels: int) -> dict[str, NDArray[np.uint8]]:
    """8-bit pictures (H, W, 3) by caption: softmax(psi) of up to ``channels`` channels, evenly spread over all.

    The current position is at the middle of the last row; the outermost cells stand for all positions beyond them.
    Dark to bright is zero to the channel's largest weight, white is never known. The caption tells that weight and the
    number of positions that the weights spread over (exp of their entropy).
    """
    import matplotlib

    maps = weight_maps(module)
    spread = effective_positions(maps)
    count = int(np.isfinite(maps[0]).sum())
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(channels, len(maps))).round().astype(int))
    colours: Any = matplotlib.colormaps["viridis"].with_extremes(bad=(1.0, 1.0, 1.0))
    pictures = {}
    for channel in chosen:
        largest = float(np.nanmax(maps[channel]))
        cells = colours(np.ma.masked_invalid(maps[channel] / largest), bytes=True)[..., :3]
        caption = f"channel {channel}: {spread[channel]:.1f} of {count} positions, largest weight {largest:.3f}"
        pictures[caption] = np.ascontiguousarray(cells.repeat(_CELL, 0).repeat(_CELL, 1))
    return pictures
