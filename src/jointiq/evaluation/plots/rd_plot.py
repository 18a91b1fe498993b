"""Rate-distortion plots for papers and reports: ours in colour, codecs in grey, learned ones of others in brown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from jointiq.errors import DataError
from jointiq.evaluation.bd_rate import quality_db
from jointiq.evaluation.plots import drawable
from jointiq.evaluation.plots import labels as plot_labels
from jointiq.evaluation.plots.labels import Label, place_labels
from jointiq.evaluation.rd import RDCurve
from jointiq.files import atomic_path

#: A line style of Matplotlib's.
Line = str | tuple[int, tuple[float, ...]]
#: Colour-blind safe (Okabe and Ito), strongest first.
OUR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: The second six curves, and so on.
OUR_LINES: tuple[Line, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)))
ANCHOR_GREYS = ("#6b6b6b", "#969696", "#b0b0b0")
#: Of learned codecs of others.
LEARNED_BROWNS = ("#8c5a2b", "#b5854f", "#cfa97a")
#: How the names of codecs begin that are not learned.
CODECS = ("jpeg", "webp", "avif", "av1", "heif", "hevc", "hm", "bpg", "vtm", "vvc", "vvenc")
ANCHOR_LINES: tuple[Line, ...] = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))
AXIS_LABELS = {"psnr": "PSNR (dB)", "ms-ssim": "MS-SSIM (dB)"}
WIDTH, HEIGHT = 6.4, 4.4  # inches
#: Suffixes of a plot for pages, and of one for papers.
PAGE, PAPER = (".png", ".svg"), (".png", ".svg", ".pdf")
# Of a PNG's palette.
_COLOURS = 128
#: Keys of the time stamps in files.
_DATES = {".svg": "Date", ".pdf": "CreationDate"}


def save(figure: Figure, path: str | Path, dpi: int = 200, colours: int | None = None) -> Path:
    """Write a figure atomically in the format of the path's suffix; the same figure gives the same bytes.

    Args:
        colours: of a PNG of lines and text, which is a quarter as large with a palette; None: all.
    """
    path = Path(path)
    metadata: dict[str, str | None] = {_DATES[path.suffix]: None} if path.suffix in _DATES else {}
    # Publishers refuse the fonts of type 3 that Matplotlib would embed. Without a salt the names in an SVG are random.
    with atomic_path(path) as temporary, rc_context({"pdf.fonttype": 42, "svg.hashsalt": path.stem}):
        figure.savefig(temporary, format=path.suffix[1:], dpi=dpi, metadata=metadata, bbox_inches="tight")
        if colours is not None and path.suffix == ".png":
            with Image.open(temporary) as whole:
                drawn = whole.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
            drawn.save(temporary, format="PNG", optimize=True)
    return path


def save_all(figure: Figure, stem: Path, suffixes: Sequence[str] = PAGE) -> list[Path]:
    """Write a figure to ``stem`` (a path without suffix) plus each of ``suffixes``; return the paths."""
    return [save(figure, stem.with_name(stem.name + suffix), colours=_COLOURS) for suffix in suffixes]


def new_figure(width: float, height: float, **padding: Any) -> Figure:
    """Return an empty figure (inches) with a :class:`ConstrainedLayoutEngine` of that ``padding``."""
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
    suffixes: Sequence[str] = PAGE,
) -> list[Path]:
    """Write :func:`rd_figure` to ``stem`` (a path without suffix) plus each of ``suffixes``; return the paths."""
    return save_all(rd_figure(ours, anchors, metric, title, bpp_range), Path(stem), suffixes)


def rd_figure(
    ours: Sequence[RDCurve],
    anchors: Sequence[RDCurve] = (),
    metric: str = "psnr",
    title: str = "",
    bpp_range: tuple[float, float] | None = None,
) -> Figure:
    """Draw rate-distortion curves, named at their right ends, or in a legend if many.

    Args:
        ours: curves to highlight, in colour; a single point is drawn as a diamond.
        anchors: curves to compare with, codecs in grey, learned ones in brown.
        metric: ``psnr`` or ``ms-ssim`` (in dB); curves without it are left out.
        title: above the plot, flush left.
        bpp_range: part of the rate axis to show; curves wholly outside are left out. Default: :func:`shown_range`.
    """
    bpp_range = bpp_range or shown_range([curve for curve in ours if _quality(curve, metric) is not None])
    many = len(ours) > len(OUR_COLOURS)
    height = max(HEIGHT, 1.0 + 1.15 * plot_labels.HEIGHT / 72.0 * (len(ours) + len(anchors)))
    figure = new_figure(WIDTH * 1.4 if many else WIDTH, height)
    axes = figure.add_subplot()
    labels: list[Label] = []
    codecs = [curve for curve in anchors if _is_codec(curve)]
    learned = [curve for curve in anchors if not _is_codec(curve)]
    for group, colours in ((codecs, ANCHOR_GREYS), (learned, LEARNED_BROWNS)):
        for i, curve in enumerate(group):
            colour, line = colours[i % len(colours)], ANCHOR_LINES[i % len(ANCHOR_LINES)]
            labels += _draw(axes, curve, metric, bpp_range, colour, line, bold=False)
    drawn = len(axes.lines)
    for i, curve in enumerate(ours):
        line = OUR_LINES[i // len(OUR_COLOURS) % len(OUR_LINES)]
        labels += _draw(axes, curve, metric, bpp_range, OUR_COLOURS[i % len(OUR_COLOURS)], line, bold=True)
    if bpp_range:
        axes.set_xlim(*bpp_range)
    _cut_below(axes, axes.lines[drawn:], labels)
    axes.set_xlabel("rate (bits per pixel)")
    axes.set_ylabel(AXIS_LABELS[metric])
    axes.set_title(drawable(title), loc="left", fontsize=11, parse_math=False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(color="#888888")
    if {LEARNED_BROWNS[0], ANCHOR_GREYS[0]} <= {label.colour for label in labels}:
        note = "grey: codecs; brown: learned, of others"
        axes.text(0.99, 0.02, note, transform=axes.transAxes, ha="right", fontsize=7, color="#777777")
    if many:
        _add_legend(figure, axes, labels)
    else:
        place_labels(figure, axes, labels)
    return figure


def _add_legend(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Name the curves beside the plot, ours first."""
    lines = axes.lines[::2]  # each curve is a line and its points
    named = sorted(zip(labels, lines, strict=True), key=lambda one: not one[0].bold)
    handles, texts = [line for _, line in named], [drawable(label.text) for label, _ in named]
    legend = figure.legend(handles, texts, loc="outside right upper", frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)


def shown_range(ours: Sequence[RDCurve]) -> tuple[float, float] | None:
    """Return the rates (bpp) to show: up to a little beyond the largest of ``ours``; None (all) without ``ours``."""
    if not ours:
        return None
    alone = all(len(curve) == 1 for curve in ours)
    return 0.0, (2.0 if alone else 1.05) * max(curve.bpp[-1] for curve in ours)


def _is_codec(curve: RDCurve) -> bool:
    return "codec" in curve.about or curve.name.lower().startswith(CODECS)


def _quality(curve: RDCurve, metric: str) -> list[float] | None:
    try:
        return quality_db(curve, metric)
    except DataError:
        return None


def _draw(
    axes: Axes,
    curve: RDCurve,
    metric: str,
    bpp_range: tuple[float, float] | None,
    colour: str,
    line: Line,
    bold: bool,
) -> list[Label]:
    """Draw the part of a curve inside ``bpp_range``; return its label, or none if there was nothing to draw."""
    known = _quality(curve, metric)
    if known is None:
        return []
    rates, quality, points = _inside(np.array(curve.bpp), np.array(known), bpp_range)
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
    return [Label(curve.name, float(rates[-1]), float(quality[-1]), colour, bold)]


def _inside(
    rates: NDArray[np.floating], quality: NDArray[np.floating], bpp_range: tuple[float, float] | None
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.bool_]]:
    """Cut a curve to ``bpp_range``; the third array is true for measured points and false for interpolated ends."""
    if bpp_range is None:
        return rates, quality, np.ones(len(rates), bool)
    low, high = bpp_range
    inside = (rates >= low) & (rates <= high)
    edges = np.array([edge for edge in bpp_range if rates[0] < edge < rates[-1]])
    order = np.argsort(np.concatenate([rates[inside], edges]))
    quality = np.concatenate([quality[inside], np.interp(edges, rates, quality)])[order]
    points = np.concatenate([np.ones(int(inside.sum()), bool), np.zeros(len(edges), bool)])[order]
    return np.concatenate([rates[inside], edges])[order], quality, points


def _cut_below(axes: Axes, ours: Sequence[Line2D], labels: Sequence[Label]) -> None:
    """Start the quality axis just below our lowest point, however low the anchors go.

    No curve's right end, where its label stands, is cut off.
    """
    heights = np.concatenate([np.empty(0), *(np.asarray(line.get_ydata(), float) for line in ours)])
    if len(heights):
        top = axes.get_ylim()[1]
        lowest = min([float(heights.min()), *(label.y for label in labels)])
        axes.set_ylim(max(axes.get_ylim()[0], lowest - 0.08 * (top - lowest)), top)
