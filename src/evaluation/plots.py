"""Figures: rate-distortion plots and picture grids, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from src.errors import DataError
from src.evaluation.bd_rate import quality_db
from src.evaluation.metrics import Image
from src.evaluation.rd import RDCurve
from src.files import atomic_path

#: Colour-blind safe (Okabe and Ito), strongest first.
OUR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
ANCHOR_GREYS = ("#6b6b6b", "#969696", "#b0b0b0")
ANCHOR_LINES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))
AXIS_LABELS = {"psnr": "PSNR (dB)", "ms-ssim": "MS-SSIM (dB)"}
LABEL_HEIGHT = 11.0  # points between the centres of two labels

_ERROR_LEVELS = 40.0  # the error map's white point, in 8-bit levels
_COLUMNS = ("original", "I output", "Q output", "error", "bit map")


@dataclass(frozen=True)
class _Label:
    text: str
    x: float
    y: float
    colour: str
    bold: bool


def save(figure: Figure, path: str | Path, dpi: int = 200) -> Path:
    """Write a figure in the format of the path's suffix, whole or not at all, without a time stamp."""
    path = Path(path)
    metadata: dict[str, str | None] | None = {"Date": None} if path.suffix == ".svg" else None
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=dpi, metadata=metadata)
    return path


def _new_figure(width: float, height: float, **padding: Any) -> Figure:
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**padding))
    FigureCanvasAgg(figure)
    return figure


def rd_plot(
    stem: str | Path,
    ours: Sequence[RDCurve],
    anchors: Sequence[RDCurve] = (),
    metric: str = "psnr",
    title: str = "",
    bpp_range: tuple[float, float] | None = None,
) -> list[Path]:
    """Write :func:`rd_figure` to ``stem`` (a path without suffix) plus ``.png`` and ``.svg``; return both paths."""
    figure = rd_figure(ours, anchors, metric, title, bpp_range)
    stem = Path(stem)
    return [save(figure, stem.with_name(stem.name + suffix)) for suffix in (".png", ".svg")]


def rd_figure(
    ours: Sequence[RDCurve],
    anchors: Sequence[RDCurve] = (),
    metric: str = "psnr",
    title: str = "",
    bpp_range: tuple[float, float] | None = None,
) -> Figure:
    """Draw rate-distortion curves, ours in colour and anchors in grey, each named at its right end.

    Args:
        ours: curves to stand out; a single point is drawn as a diamond.
        anchors: curves to compare with.
        metric: ``psnr`` or ``ms-ssim`` (in dB); curves without it are left out.
        title: above the plot, flush left.
        bpp_range: part of the rate axis to show; curves wholly outside are left out. Default: everything.
    """
    figure = _new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    labels: list[_Label] = []
    for i, curve in enumerate(anchors):
        grey, line = ANCHOR_GREYS[i % len(ANCHOR_GREYS)], ANCHOR_LINES[i % len(ANCHOR_LINES)]
        labels += _draw(axes, curve, metric, bpp_range, grey, line, bold=False)
    for i, curve in enumerate(ours):
        labels += _draw(axes, curve, metric, bpp_range, OUR_COLOURS[i % len(OUR_COLOURS)], "-", bold=True)
    if bpp_range:
        axes.set_xlim(*bpp_range)
    axes.set_xlabel("rate (bits per pixel)")
    axes.set_ylabel(AXIS_LABELS[metric])
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(color="#888888")
    _place_labels(figure, axes, labels)
    return figure


def _draw(
    axes: Axes,
    curve: RDCurve,
    metric: str,
    bpp_range: tuple[float, float] | None,
    colour: str,
    line: str | tuple[int, tuple[int, ...]],
    bold: bool,
) -> list[_Label]:
    """Draw the part of a curve inside ``bpp_range`` and give its label, or nothing where there is nothing to draw."""
    try:
        quality = np.array(quality_db(curve, metric))
    except DataError:
        return []
    rates = np.array(curve.bpp)
    points = np.ones(len(rates), bool)
    if bpp_range:
        low, high = bpp_range
        inside = (rates >= low) & (rates <= high)
        edges = np.array([edge for edge in bpp_range if rates[0] < edge < rates[-1]])
        order = np.argsort(np.concatenate([rates[inside], edges]))
        quality = np.concatenate([quality[inside], np.interp(edges, rates, quality)])[order]
        rates = np.concatenate([rates[inside], edges])[order]
        points = np.concatenate([np.ones(int(inside.sum()), bool), np.zeros(len(edges), bool)])[order]
    if not len(rates):
        return []
    over = 3 if bold else 2
    axes.plot(rates, quality, color=colour, linestyle=line, linewidth=2.0 if bold else 1.2, zorder=over)
    lone = len(rates) == 1
    axes.plot(
        rates[points],
        quality[points],
        linestyle="none",
        marker="D" if lone else "o",
        markersize=7 if lone else 4.5 if bold else 2.5,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.8 if bold else 0,
        zorder=over + 1,
    )
    return [_Label(curve.name, float(rates[-1]), float(quality[-1]), colour, bold)]


def _place_labels(figure: Figure, axes: Axes, labels: Sequence[_Label]) -> None:
    """Write each label right of its curve's end; labels that would touch are moved apart vertically."""
    texts = [
        axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=label.colour,
            fontsize=9,
            fontweight="bold" if label.bold else "normal",
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        for label in labels
    ]
    figure.draw_without_rendering()  # the layout makes room for the texts; only now is it known where they stand
    boxes = [text.get_window_extent() for text in texts]
    shifts = np.zeros(len(texts))
    gap = LABEL_HEIGHT * figure.dpi / 72.0
    for _ in range(100):
        moved = False
        for i in range(len(texts)):
            for j in range(i):
                if boxes[i].x0 > boxes[j].x1 or boxes[j].x0 > boxes[i].x1:
                    continue
                distance = boxes[i].y0 + shifts[i] - boxes[j].y0 - shifts[j]
                if abs(distance) < gap - 0.01:
                    step = np.copysign(0.5 * (gap - abs(distance)), distance)
                    shifts[i], shifts[j], moved = shifts[i] + step, shifts[j] - step, True
        if not moved:
            break
    for text, shift in zip(texts, shifts, strict=True):
        text.xyann = (8, shift * 72.0 / figure.dpi)


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
    figure = _new_figure(*size, w_pad=0.03, h_pad=0.05, wspace=0.01, hspace=0.01)
    grid = figure.add_gridspec(len(rows) + 1, len(_COLUMNS), height_ratios=[*heights, bar])
    brightest = max(float(row.bits.max()) for row in rows)
    scales = {"error": (Normalize(0, _ERROR_LEVELS), "magma"), "bit map": (Normalize(0, brightest), "viridis")}
    for i, row in enumerate(rows):
        difference = np.abs(row.original.astype(np.int16) - row.output).mean(axis=2)
        height, width = difference.shape
        captions = (
            row.name,
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
            axes.set_xlabel(caption, fontsize=9, color="#333333", labelpad=3)
            if i == 0:
                axes.set_title(column, fontsize=11, pad=5)
    for column, label in (("error", "8-bit levels"), ("bit map", "bits per latent position")):
        axes = figure.add_subplot(grid[len(rows), _COLUMNS.index(column)])
        extend = "max" if column == "error" else "neither"
        scale = figure.colorbar(ScalarMappable(*scales[column]), cax=axes, orientation="horizontal", extend=extend)
        scale.set_label(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return save(figure, path, dpi=120)
