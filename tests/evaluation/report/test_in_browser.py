"""The page in a real browser, from a file, driven by clicks and keys. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from jointiq.evaluation.report.gallery import Packing, gallery
from jointiq.evaluation.report.page import render
from jointiq.evaluation.report.sources import read_sources
from tests.evaluation.report.browser import CHROMIUM, DRIVER, KEYS, Browser, browser
from tests.evaluation.report.study import ANCHOR, MODEL, SIZE, make_study

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    sources = read_sources([make_study(folder)], [], folder / "images", "pchip")
    path = folder / "report.html"
    path.write_text(render("A report", sources, gallery(sources, Packing()), Packing()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_complaints(window: Browser) -> Iterator[None]:
    window.errors()
    yield
    assert window.errors() == []


def shown(window: Browser) -> list[str]:
    return window.run("return [...document.querySelectorAll('#stage img')].map((image) => image.alt)")


def decoded(window: Browser) -> list[list[int]]:
    """Natural sizes of the pictures on the stage, once they are there."""
    return window.run(
        "return Promise.all([...document.querySelectorAll('#stage img')].map((image) =>"
        " image.decode().then(() => [image.naturalHeight, image.naturalWidth])))"
    )


def crops(window: Browser) -> list[str]:
    return window.run(
        "return new Promise((done) => setTimeout(done, 150)).then(() => "
        "[...document.querySelectorAll('#crops canvas')].map((canvas) => canvas.toDataURL()))"
    )


def rate(text: str) -> float:
    return float(text.split(": ")[1].split(" bpp")[0])


def test_two_codecs_at_the_nearest_rate(page: Path, window: Browser) -> None:
    window.open(page)
    ours, theirs = shown(window)
    assert ours.startswith(f"one.png by {MODEL}: ") and theirs.startswith(f"one.png by {ANCHOR}: ")
    assert decoded(window) == [list(SIZE)] * 2
    anchor_rates = [0.19 * 1.5**q for q in range(8)]
    assert rate(theirs) == pytest.approx(min(anchor_rates, key=lambda r: abs(np.log(r / rate(ours)))), abs=1e-3)
    apart = 100 * (rate(theirs) / rate(ours) - 1)
    assert f"B spends {abs(apart):.1f}"[:-2] in window.text("#match")
    pictures = crops(window)
    assert len(set(pictures)) == 3  # original, A, B


def test_keys_choose_image_rate_and_way_to_compare(page: Path, window: Browser) -> None:
    window.open(page)
    first = rate(shown(window)[0])
    window.press("#stage", "]")
    assert shown(window)[0].startswith("two.png")
    assert rate(shown(window)[0]) == pytest.approx(1.3 * first, rel=0.01)  # the same point of the curve
    window.press("#stage", ".[")
    assert shown(window)[0].startswith("one.png")
    assert rate(shown(window)[0]) == pytest.approx(2 * first, rel=0.01)
    assert window.run("return getComputedStyle(document.getElementById('divider-label')).display") == "none"
    window.press("#stage", "2")
    assert window.run("return document.getElementById('stage').className") == "slider"
    window.press("#divider", KEYS["right"] * 3)
    clip = "return getComputedStyle(document.querySelector('#stage .pane.b')).clipPath"
    assert window.run(clip) == "inset(0px 0px 0px 53%)"
    window.press("#stage", "3")
    assert len(shown(window)) == 1 and MODEL in shown(window)[0]
    window.press("#stage", "f")
    assert len(shown(window)) == 1 and ANCHOR in shown(window)[0]
    window.click("#flip")
    assert MODEL in shown(window)[0]


def test_the_crop_moves_with_pointer_and_arrows(page: Path, window: Browser) -> None:
    window.open(page, "zoom=8")
    before = crops(window)
    window.press("#stage", KEYS["right"] * 2 + KEYS["down"])
    moved = crops(window)
    assert all(one != other for one, other in zip(before, moved, strict=True))
    places = window.run("return [...document.querySelectorAll('.window')].map((w) => [w.style.left, w.style.top])")
    assert len(places) == 2 and places[0] == places[1]
    window.click("#stage .pane.b")  # in its middle
    assert crops(window) == before


def test_selects_and_the_original(page: Path, window: Browser) -> None:
    window.open(page)
    window.press("#codec-b", "original")
    assert shown(window)[1] == "one.png by original"
    window.press("#codec-a", "JPEG")
    assert shown(window)[0].startswith(f"one.png by {ANCHOR}")
    assert window.run("return location.hash.includes('b=original')")


def test_the_address_keeps_the_state(page: Path, window: Browser) -> None:
    window.open(page, urlencode({"image": "two.png", "a": ANCHOR, "b": MODEL, "mode": "slider", "split": 30}))
    assert shown(window)[0].startswith(f"two.png by {ANCHOR}") and shown(window)[1].startswith(f"two.png by {MODEL}")
    assert window.run("return document.getElementById('divider').value") == "30"


def test_each_image_against_the_anchor(page: Path, window: Browser) -> None:
    window.open(page)
    assert "of 2 images" in window.text("#scatter-summary")
    points = window.run(
        "return [...document.querySelectorAll('#scatter-plot a')].map((a) => a.getAttribute('aria-label'))"
    )
    assert [point.split(":")[0] for point in points] == ["one.png", "two.png"]
    assert all(f"{ANCHOR} " in point and "dB (" in point for point in points)
    window.run(
        "document.querySelectorAll('#scatter-plot a .ours')[1].dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    assert shown(window)[0].startswith("two.png")


def test_a_narrow_window_needs_no_sideways_scrolling(page: Path, window: Browser, tmp_path: Path) -> None:
    for width in (500, 1280):
        window.open(page, width=width)
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
    window.screenshot(tmp_path / "window.png")
    with Image.open(tmp_path / "window.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 100
