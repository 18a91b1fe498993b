"""Figures are written, and hold what they should."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from jointiq.evaluation.plots.picture_grid import GridRow, picture_grid
from jointiq.evaluation.plots.rd_plot import ANCHOR_GREYS, LEARNED_BROWNS, PAPER, rd_figure, rd_plot, shown_range
from jointiq.evaluation.rd import RDCurve
from tests.marks import slow

ANCHOR = RDCurve("JPEG", {"bpp": (0.2, 0.5, 1.0, 2.0), "psnr-rgb": (25.0, 28.0, 31.0, 35.0)})
OURS = RDCurve("ours", {"bpp": (0.3,), "psnr-rgb": (28.0,), "ms-ssim-rgb": (0.95,)})


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_curve_is_labelled_at_its_right_end() -> None:
    figure = rd_figure([OURS], [ANCHOR], title="a title")
    axes = figure.axes[0]
    assert labels(figure) == ["JPEG", "ours"]
    assert axes.texts[1].xy == (0.3, 28.0)
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("a title", "PSNR (dB)")


def test_many_curves_of_ours_are_told_apart_in_a_legend(tmp_path: Path) -> None:
    many = [RDCurve(f"${i}", {"bpp": (0.2, 0.4 + 0.1 * i), "psnr-rgb": (25.0, 35.0)}) for i in range(10)]
    figure = rd_figure(many, [ANCHOR])
    (legend,) = figure.legends
    assert labels(figure) == [] and [text.get_text() for text in legend.get_texts()] == [
        *(c.name for c in many),
        "JPEG",
    ]
    looks = {(line.get_color(), line.get_linestyle()) for line in legend.get_lines()}
    assert len(looks) == 11
    files = rd_plot(tmp_path / "plot", many, suffixes=PAPER)
    assert [path.suffix for path in files] == [".png", ".svg", ".pdf"]
    pdf = files[2].read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf and b"/CreationDate" not in pdf


def test_learned_codecs_of_others_have_a_colour_of_their_own() -> None:
    learned = RDCurve("HPCM", ANCHOR.results)
    measured = RDCurve("my codec", ANCHOR.results, about={"codec": "mine"})
    figure = rd_figure([OURS], [ANCHOR, learned, measured])
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert {colours["JPEG"], colours["my codec"]} <= set(ANCHOR_GREYS) and colours["HPCM"] == LEARNED_BROWNS[0]
    assert "grey: codecs; brown: learned, of others" in colours
    assert len(labels(rd_figure([OURS], [learned]))) == 2


def test_curves_are_cut_at_the_range() -> None:
    figure = rd_figure([OURS], [ANCHOR], bpp_range=(0.0, 0.75))
    assert figure.axes[0].texts[0].xy == pytest.approx((0.75, 29.5))
    assert max(figure.axes[0].lines[0].get_xdata()) == 0.75


def test_the_range_is_ours_and_some_more() -> None:
    assert shown_range([]) is None
    assert shown_range([OURS]) == (0.0, 0.6)
    assert shown_range([OURS, ANCHOR]) == (0.0, pytest.approx(2.1))
    figure = rd_figure([OURS], [ANCHOR])
    assert figure.axes[0].texts[0].xy == pytest.approx((0.6, 28.6))  # where the anchor leaves the plot
    assert figure.axes[0].get_ylim()[0] < 28.0


def test_the_depths_of_anchors_are_cut_off() -> None:
    ours = RDCurve("ours", {"bpp": (0.5, 1.0, 2.0), "psnr-rgb": (33.0, 35.0, 38.0)})
    assert 31.5 < rd_figure([ours], [ANCHOR]).axes[0].get_ylim()[0] < 33.0


def boxes_of(figure: Figure) -> list[Bbox]:
    figure.draw_without_rendering()
    return [Text.get_window_extent(text) for text in figure.axes[0].texts]


@pytest.mark.parametrize("count", [4, slow(30)])
def test_labels_do_not_touch_and_stay_on_the_page(count: int) -> None:
    rng = np.random.default_rng(0)
    many = [
        RDCurve(f"curve {i}", {"bpp": (0.2, right), "psnr-rgb": (25.0, 34.0 + rng.normal())})
        for i, right in enumerate(rng.choice([0.5, 0.9, 1.5], count))
    ]
    figure = rd_figure(many[:2], many[2:], bpp_range=(0.0, 1.0))
    boxes = boxes_of(figure)
    assert all(not one.overlaps(other.padded(-1)) for one, other in itertools.combinations(boxes, 2))
    assert all(box.y0 > -2 and box.y1 < figure.bbox.height + 2 and box.x1 <= figure.bbox.width for box in boxes)


def test_a_label_inside_the_plot_stays_off_the_lines() -> None:
    best = RDCurve("the best curve", {"bpp": (0.1, 1.5), "psnr-rgb": (30.0, 38.0)})
    low, lower = (
        RDCurve("x", {"bpp": (0.1, 2.0), "psnr-rgb": (29.9, quality)}) for quality in (40.4, 40.2)
    )  # they go on where the best ends
    figure = rd_figure([best, low, lower])
    (box, *_), axes = boxes_of(figure), figure.axes[0]
    for line in axes.lines:
        (x0, y0), (x1, y1) = axes.transData.transform(line.get_xydata())[[0, -1]]
        along = np.linspace(0, 1, 2000)[:, None]
        points = np.array([x0, y0]) + along * np.array([x1 - x0, y1 - y0])
        assert not any(box.padded(-1).contains(*point) for point in points)


def test_curves_without_the_metric_or_outside_the_range_are_left_out() -> None:
    assert labels(rd_figure([OURS], [ANCHOR], metric="ms-ssim")) == ["ours"]
    far = RDCurve("far", {"bpp": (3.0, 4.0), "psnr-rgb": (38.0, 40.0)})
    assert labels(rd_figure([OURS], [ANCHOR, far], bpp_range=(0.0, 0.8))) == ["JPEG", "ours"]


def test_rd_plot_writes_png_and_svg(tmp_path: Path) -> None:
    png, svg = rd_plot(tmp_path / "rd", [OURS], [ANCHOR])
    assert (png.name, svg.name) == ("rd.png", "rd.svg")
    with Image.open(png) as picture:
        assert min(picture.size) > 500
    assert "</svg>" in svg.read_text()


def test_a_plot_is_reproducible(tmp_path: Path) -> None:
    first, second = (rd_plot(tmp_path / folder / "plot", [ANCHOR], suffixes=PAPER) for folder in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_dollars_in_names_are_no_formulas(tmp_path: Path) -> None:
    """Also where what is between them is no formula that Matplotlib could draw."""
    names = ("cost$x$", "cost$_$")
    curves = [RDCurve(name, OURS.results) for name in names]
    figure = rd_figure(curves, [ANCHOR], title=names[1])
    figure.draw_without_rendering()
    assert labels(figure)[1:] == list(names)
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())
    picture = np.zeros((32, 32, 3), np.uint8)
    row = GridRow(names[1], picture, picture, picture, np.ones((2, 2)), bpp=0.2, psnr_mid=28.0, psnr=29.0)
    assert picture_grid(tmp_path / "grid.png", [row], names[1]).is_file()


def test_picture_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def row(name: str, height: int, width: int) -> GridRow:
        picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        bits = rng.gamma(2.0, 8.0, (-(-height // 16), -(-width // 16)))
        return GridRow(name, picture, picture, picture, bits, bpp=0.2, psnr_mid=28.0, psnr=29.0)

    one = picture_grid(tmp_path / "one.png", [row("a", 70, 100)])
    two = picture_grid(tmp_path / "two.png", [row("a", 70, 100), row("b", 129, 65)], "a title")
    with Image.open(one) as small, Image.open(two) as large:
        assert small.width == large.width
        assert large.height > 1.5 * small.height
