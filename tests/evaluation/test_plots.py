"""Figures are written, and hold what they should."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from src.evaluation.plots import GridRow, picture_grid, rd_figure, rd_plot
from src.evaluation.rd import RDCurve

ANCHOR = RDCurve("JPEG", {"bpp": (0.2, 0.5, 1.0, 2.0), "psnr-rgb": (25.0, 28.0, 31.0, 35.0)})
OURS = RDCurve("ours", {"bpp": (0.3,), "psnr-rgb": (28.0,), "ms-ssim-rgb": (0.95,)})


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_curve_is_labelled_at_its_right_end() -> None:
    figure = rd_figure([OURS], [ANCHOR], title="a title")
    axes = figure.axes[0]
    assert labels(figure) == ["JPEG", "ours"]
    assert axes.texts[0].xy == (2.0, 35.0)
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("a title", "PSNR (dB)")


def test_curves_are_cut_at_the_range() -> None:
    figure = rd_figure([OURS], [ANCHOR], bpp_range=(0.0, 0.75))
    assert figure.axes[0].texts[0].xy == pytest.approx((0.75, 29.5))
    assert max(figure.axes[0].lines[0].get_xdata()) == 0.75


def test_labels_do_not_touch() -> None:
    twins = [RDCurve(name, ANCHOR.results) for name in "abcd"]
    figure = rd_figure([], twins)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


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
    first, second = (rd_plot(tmp_path / name, [OURS], [ANCHOR])[0].read_bytes() for name in "ab")
    assert first == second


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
