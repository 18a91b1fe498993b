"""The page holds everything, and nothing from elsewhere."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jointiq.errors import DataError
from jointiq.evaluation.rd import read_rd
from jointiq.evaluation.report.gallery import Packing, gallery
from jointiq.evaluation.report.page import page_data, render, script_json
from jointiq.evaluation.report.provenance import caveats, reference_of
from jointiq.evaluation.report.sources import read_sources
from tests.evaluation.report.study import ANCHOR, MODEL, make_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    sources = read_sources([results], [], results.parent / "images", "pchip")
    return render("A <b>title</b>", sources, gallery(sources, Packing()), Packing())


class Parser(HTMLParser):
    """Collects ids, addresses and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input", "img", "br"):
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(str(value))
            if key in ("href", "src", "xlink:href"):
                self.addresses.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_nothing_is_loaded_and_every_id_is_one(page: str) -> None:
    parser = Parser()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    inside = {address[1:] for address in parser.addresses if address.startswith("#")}
    assert inside and inside <= set(parser.ids)
    assert all(address.startswith(("#", "data:image/svg+xml;base64,")) for address in parser.addresses)
    assert not re.search(r"(?:src|href)=[\"']?https?:|@import|url\([\"']?http|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


def test_names_are_escaped(page: str) -> None:
    assert "A &lt;b&gt;title&lt;/b&gt;" in page and "<b>title" not in page
    assert "JPEG &lt;old&gt;" in page and "JPEG <old>" not in page
    assert "1.0 &amp; more" in page
    assert script_json({"x": "</script><!--"}) == '{"x":"\\u003c/script>\\u003c!--"}'


def test_tables_and_plots(page: str, results: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", page)
    assert "BD-rate by PSNR, pchip" in text and "BD-rate by MS-SSIM" not in text
    assert page.count("<img ") == 1  # PSNR only: the pictures are too small for MS-SSIM
    curve = read_rd(results / "ours.json")
    for rate, level in zip(curve.bpp, curve.results["psnr-rgb"], strict=True):
        assert f"<td>{rate:.4f}</td><td>{level:.2f}</td>" in page


def test_data_for_the_scripts(page: str, results: Path) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert [(curve["name"], curve["anchor"]) for curve in data["curves"]] == [(MODEL, False), (ANCHOR, True)]
    assert [image["name"] for image in data["images"]] == ["one.png", "two.png"]
    rows = data["curves"][1]["rows"]
    assert len(rows) == 16 and rows[0]["point"] == "quality 0"
    pictures = {row["picture"] for curve in data["curves"] for row in curve["rows"]} - {None}
    pictures |= {image["picture"] for image in data["images"]}
    assert pictures == set(range(page.count('id="picture-')))


def test_curves_alone_make_a_report(tmp_path: Path) -> None:
    file = tmp_path / "published.json"
    file.write_text(json.dumps({"name": "published", "results": {"bpp": [0.3], "psnr-rgb": [30]}}))
    sources = read_sources([file], [], None, "pchip")
    found = gallery(sources, Packing())
    page = render("title", sources, found, Packing())
    assert page_data(sources, found) == {"curves": [], "images": []}
    assert "None can be computed" in page and "No decoded pictures were kept" in page


def write(path: Path, name: str, points: int = 4, factor: float = 1.0, **more: object) -> Path:
    rates = [0.1 * 2**i for i in range(points)]
    results = {"bpp": [factor * rate for rate in rates], "psnr-rgb": [40 + 6 * math.log2(rate) for rate in rates]}
    path.write_text(json.dumps({"name": name, "results": results, **more}))
    return path


def test_ablations_stand_beside_the_papers(tmp_path: Path) -> None:
    write(tmp_path / "jointiq.json", "full")
    write(tmp_path / "ablation_no_gc.json", "without", factor=1.05)
    sources = read_sources([tmp_path], [], None, "pchip")
    page = render("title", sources, gallery(sources, Packing()), Packing())
    assert "Table 2: BD-rate losses" in page
    assert "<td class=left>without GC</td><td>0.92</td><td>5.00</td>" in page


def test_caveats_name_what_a_reader_must_know(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.json", "ours", images=[{"checkpoint": "a", "image": "x"}])
    few = write(tmp_path / "few.json", "few", points=2)
    anchors = [
        write(tmp_path / "vtm.json", "VTM", status="published"),
        write(tmp_path / "own.json", "own VTM", about={"quality": "against the original 8-bit RGB"}),
        write(tmp_path / "guess.json", "guess", status="derived, NOT published"),
    ]
    sources = read_sources([ours, few], anchors, None, "akima")
    told = "\n".join(caveats(sources))
    assert "akima interpolation" in told and "never extrapolated" in told
    assert "Not scored against the original RGB, as far as is known: VTM." in told
    assert "not recorded in the files of: few, guess." in told
    assert "neither measured nor published: guess." in told
    assert "Too few points for a BD-rate: few." in told
    assert "No BD-rate: few against VTM, psnr: few has 2 points" in told
    assert [reference_of(source).split()[0] for source in sources.all] == ["against", "not", "not", "against", "not"]


def test_an_anchor_with_the_name_of_a_model_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "anchors").mkdir()
    write(tmp_path / "a.json", "same")
    write(tmp_path / "anchors" / "b.json", "same")
    sources = read_sources([tmp_path], [], None, "pchip")
    assert [source.curve.name for source in sources.all] == ["same", "same (anchor)"]
    assert sources.comparison.rates[0].anchor == "same (anchor)"


def test_sources_that_cannot_be_used(tmp_path: Path, results: Path) -> None:
    with pytest.raises(DataError, match="no RD files in"):
        read_sources([tmp_path], [], None, "pchip")
    with pytest.raises(DataError, match="no such file or folder"):
        read_sources([tmp_path / "nowhere"], [], None, "pchip")
    with pytest.raises(DataError, match="none of its 4 images is named in the RD files"):
        read_sources([results], [], _renamed(results, tmp_path), "pchip")


def _renamed(results: Path, folder: Path) -> Path:
    for i, file in enumerate(sorted((results.parent / "pictures").rglob("one.png"))):
        (folder / f"other{i}.png").write_bytes(file.read_bytes())
    return folder
