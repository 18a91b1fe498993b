"""Picture grids: original, outputs of I and Q, error and bit map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jointiq.evaluation.metrics import Image
from jointiq.evaluation.plots import drawable
from jointiq.evaluation.plots.rd_plot import new_figure, save

_ERROR_LEVELS = 40.0  # the error map's white point, in 8-bit levels
_COLUMNS = ("original", "I output", "Q output", "error", "bit map")


@dataclass(frozen=True)
class GridRow:
    """One image of a picture grid: uint8 pictures (H, W, 3), bits per latent position (h, w), numbers for captions."""

    name: str
    original: Image
    mid: Image
    output: Image
    bits: NDArray[np.floating]
    bpp: float
    psnr_mid: float
    psnr: float


def picture_grid(path: str | Path, rows: Sequence[GridRow], title: str = "", cell: float = 2.6) -> Path:
    """Draw original | I output | Q output | error | bit map, one row per image, and write it to ``path``.

    I is the compression network, Q the quality enhancement after it. The error is the mean absolute difference of
    original and Q output over R, G and B in 8-bit levels; the bit map shows bits per position of the latent grid y,
    every position a block of 16x16 pixels. Both have one colour scale for all rows. ``cell`` is a picture's width in
    inches.
    """
    heights = [cell * min(1.6, row.original.shape[0] / row.original.shape[1]) for row in rows]
    bar = 0.1
    size = cell * len(_COLUMNS) + 0.2, sum(heights) + 0.3 * len(rows) + bar + 1.0
    figure = new_figure(*size, w_pad=0.03, h_pad=0.05, wspace=0.01, hspace=0.01)
    grid = figure.add_gridspec(len(rows) + 1, len(_COLUMNS), height_ratios=[*heights, bar])
    brightest = max(float(row.bits.max()) for row in rows)
    scales = {"error": (Normalize(0, _ERROR_LEVELS), "magma"), "bit map": (Normalize(0, brightest), "viridis")}
    for i, row in enumerate(rows):
        difference = np.abs(row.original.astype(np.int16) - row.output).mean(axis=2)
        height, width = difference.shape
        captions = (
            drawable(row.name),
            f"{row.psnr_mid:.2f} dB",
            f"{row.bpp:.3f} bpp, {row.psnr:.2f} dB",
            f"mean {difference.mean():.1f} levels",
            f"{row.bits.min():.1f} to {row.bits.max():.1f} bits",
        )
        for j, (column, caption) in enumerate(zip(_COLUMNS, captions, strict=True)):
            axes = figure.add_subplot(grid[i, j])
            if column in scales:
                blocks = np.kron(row.bits, np.ones((16, 16)))[:height, :width]
                norm, colours = scales[column]
                axes.imshow(difference if column == "error" else blocks, cmap=colours, norm=norm)
            else:
                axes.imshow((row.original, row.mid, row.output)[j])
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(caption, fontsize=9, color="#333333", labelpad=3, parse_math=False)
            if i == 0:
                axes.set_title(column, fontsize=11, pad=5)
    for column, label in (("error", "8-bit levels"), ("bit map", "bits per latent position")):
        axes = figure.add_subplot(grid[len(rows), _COLUMNS.index(column)])
        extend = "max" if column == "error" else "neither"
        scale = figure.colorbar(ScalarMappable(*scales[column]), cax=axes, orientation="horizontal", extend=extend)
        scale.set_label(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.suptitle(drawable(title), x=0.01, ha="left", fontsize=12, parse_math=False)
    return save(figure, path, dpi=120)
