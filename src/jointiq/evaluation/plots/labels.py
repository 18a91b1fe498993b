"""Place labels at the ends of plotted lines so that they do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from numpy.typing import NDArray

from jointiq.evaluation.plots import drawable

HEIGHT = 11.0  # points between the centres of two labels
#: Ends right of this share of the axis have their labels in one column beside the plot.
MARGIN_FROM = 0.9
#: Where a label may stand around an end inside the plot: points right, points up, alignment.
PLACES = (
    (8.0, 0.0, "left"),
    (-2.0, 10.0, "right"),
    (0.0, 10.0, "center"),
    (8.0, -9.0, "left"),
    (10.0, -20.0, "left"),
    (-2.0, 20.0, "right"),
)
#: Cost of covering a pixel of a thin line, a pixel of a thick line, and another label.
THIN, THICK, LABEL = 1, 6, 300


@dataclass(frozen=True)
class Label:
    """A text for the end (x, y) of a line, in the line's colour."""

    text: str
    x: float
    y: float
    colour: str
    bold: bool


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label at its line's end; those at the right edge in a column beside the plot, with leader lines.

    A label inside the plot takes the place around the end with the least cost. Labels that still overlap are moved
    apart vertically.
    """
    right = axes.get_xlim()[1]
    beside = [label.x >= MARGIN_FROM * right for label in labels]
    texts = [_write(axes, label, column) for label, column in zip(labels, beside, strict=True)]
    figure.draw_without_rendering()  # the layout makes room for the texts, which decides where they are
    _choose_places(axes, texts, beside)
    figure.draw_without_rendering()
    points = 72.0 / figure.dpi
    boxes = _boxes(texts) * points
    shifts = _shifts(boxes, figure.get_figheight() * 72.0)
    for text, column, shift in zip(texts, beside, shifts, strict=True):
        across, up = text.xyann
        if column:
            pixels = axes.transData.transform((0.0, up))[1] + shift / points
            text.xyann = (across, float(axes.transData.inverted().transform((0.0, pixels))[1]))
        else:
            text.xyann = (across, up + shift)
        if text.arrow_patch is not None:
            text.arrow_patch.set_visible(bool(abs(shift) > (HEIGHT / 3 if column else HEIGHT)))


def _write(axes: Axes, label: Label, column: bool) -> Annotation:
    leader = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
    return axes.annotate(
        drawable(label.text),
        (label.x, label.y),
        xytext=(1.03, label.y) if column else PLACES[0][:2],
        textcoords=("axes fraction", "data") if column else "offset points",
        va="center",
        color=label.colour,
        fontsize=9,
        fontweight="bold" if label.bold else "normal",
        annotation_clip=False,
        zorder=10,
        parse_math=False,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        arrowprops={**leader, "relpos": (0.0 if column else 0.5, 0.5)},
    )


def _boxes(texts: Sequence[Annotation]) -> NDArray[np.floating]:
    """Return left, right, bottom and top of each text in pixels, (n, 4), without its leader line."""
    extents = [super(Annotation, text).get_window_extent() for text in texts]
    return np.array([[box.x0, box.x1, box.y0, box.y1] for box in extents]).reshape(-1, 4)


def _choose_places(axes: Axes, texts: Sequence[Annotation], beside: Sequence[bool]) -> None:
    paths = [_dense(axes.transData.transform(np.asarray(line.get_xydata()))) for line in axes.lines]
    lines = np.concatenate([np.empty((0, 2)), *paths])
    prices = np.repeat([THICK if x.get_linewidth() > 1.5 else THIN for x in axes.lines], [len(path) for path in paths])
    boxes = _boxes(texts)
    taken = [box for box, column in zip(boxes, beside, strict=True) if column]
    pixels = axes.figure.dpi / 72.0
    inside = [(text, box) for text, box, column in zip(texts, boxes, beside, strict=True) if not column]
    for text, box in sorted(inside, key=lambda item: item[0].get_fontweight() != "bold"):  # ours choose first
        end = axes.transData.transform(text.xy)
        costs = []
        for across, up, alignment in PLACES:
            width, height = box[1] - box[0], box[3] - box[2]
            left = end[0] + across * pixels - {"left": 0.0, "center": width / 2, "right": width}[alignment]
            bottom = end[1] + up * pixels - height / 2
            place = np.array([left, left + width, bottom, bottom + height])
            covered = (lines > place[[0, 2]]).all(axis=1) & (lines < place[[1, 3]]).all(axis=1)
            touched = sum(_touch(place, other) for other in taken)
            costs.append((int(prices[covered].sum()) + LABEL * touched, place))
        best = min(range(len(PLACES)), key=lambda i: costs[i][0])
        taken.append(costs[best][1])
        text.xyann = PLACES[best][:2]
        text.set(horizontalalignment=PLACES[best][2])


def _dense(line: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return points along a line (n, 2), about one for each pixel."""
    if len(line) < 2:
        return line
    walked = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    steps = np.linspace(0.0, walked[-1], int(walked[-1]) + 2)
    return np.stack([np.interp(steps, walked, line[:, axis]) for axis in (0, 1)], axis=1)


def _touch(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    return bool(one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3])


def _shifts(boxes: NDArray[np.floating], height: float) -> NDArray[np.floating]:
    """Return how far each label moves up so that none overlap and all stay within ``height``; all in points."""
    centres = boxes[:, 2:].mean(axis=1)
    shifts = np.zeros(len(boxes))
    for _ in range(500):
        moved = False
        for i in range(len(boxes)):
            for j in range(i):
                if boxes[i, 0] > boxes[j, 1] or boxes[j, 0] > boxes[i, 1]:
                    continue
                distance = centres[i] + shifts[i] - centres[j] - shifts[j]
                if abs(distance) < HEIGHT - 0.01:
                    # Labels keep the order of their lines' ends.
                    upward = 1.0 if (centres[i], i) > (centres[j], j) else -1.0
                    step = 0.5 * upward * (HEIGHT - upward * distance)
                    shifts[i], shifts[j], moved = shifts[i] + step, shifts[j] - step, True
        shifts = np.clip(centres + shifts, HEIGHT / 2, height - HEIGHT / 2) - centres
        if not moved:
            break
    return shifts
