"""Which pictures are in a report."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jointiq.data.images import read_image, write_png
from jointiq.errors import DataError
from jointiq.evaluation.metrics import psnr
from jointiq.evaluation.pictures import picture_path
from jointiq.evaluation.report.gallery import Gallery, Packed, Packing, gallery, pack
from jointiq.evaluation.report.sources import Sources, read_sources
from tests.evaluation.report.study import NAMES, SIZE, make_study


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return make_study(tmp_path)


def sources(results: Path, images: bool = True) -> Sources:
    return read_sources([results], [], results.parent / "images" if images else None, "pchip")


def unpack(picture: Packed) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.text))))


def rows_shown(found: Gallery, of: Sources, curve: int) -> list[dict]:
    return [dict(of.all[curve].curve.images[row]) for index, row in found.shown if index == curve]


def test_all_of_ours_and_the_nearest_of_theirs_exactly_as_decoded(results: Path) -> None:
    given = sources(results)
    found = gallery(given, Packing())
    assert found.problems == []
    assert len(rows_shown(found, given, 0)) == 8
    for image in NAMES:
        rates = [row["bpp"] for row in given.all[1].curve.images if row["image"] == image]
        ours = [row["bpp"] for row in given.all[0].curve.images if row["image"] == image]
        nearest = {min(rates, key=lambda rate: abs(np.log(rate / our))) for our in ours}
        assert {row["bpp"] for row in rows_shown(found, given, 1) if row["image"] == image} == nearest
        assert len(nearest) < len(rates)
    for (curve, row), picture in found.shown.items():
        source = given.all[curve]
        kept = read_image(source.path.parent / source.curve.images[row]["picture"])
        assert np.array_equal(unpack(found.pictures[picture]), kept)
    for name, original in found.originals.items():
        assert original.picture is not None
        assert np.array_equal(unpack(found.pictures[original.picture]), read_image(results.parent / "images" / name))
    assert found.size == sum(len(picture.text) for picture in found.pictures)


def test_a_picture_that_was_not_measured_is_not_shown(results: Path) -> None:
    given = sources(results)
    rows = given.all[0].curve.images
    files = [picture_path(results / "ours.json", row) or results for row in rows]
    write_png(files[0], 255 - read_image(files[0]))
    write_png(files[1], read_image(files[1])[:50])
    files[2].unlink()
    found = gallery(given, Packing())
    assert not {(0, 0), (0, 1), (0, 2)} & set(found.shown) and (0, 3) in found.shown
    told = "\n".join(found.problems)
    assert f"{files[0]}: has" in told and "measured were" in told
    assert f"{files[1]}: is 160x50, measured was 160x96" in told
    assert f"{files[2]}: no such file" in told


def test_large_pictures_show_their_middle(results: Path) -> None:
    given = sources(results)
    found = gallery(given, Packing(max_side=64))
    assert {original.shown for original in found.originals.values()} == {(48, 16, 64, 64)}
    kept = read_image(results / given.all[0].curve.images[0]["picture"])
    assert np.array_equal(unpack(found.pictures[found.shown[0, 0]]), kept[16:80, 48:112])


def test_what_goes_beyond_the_limit_is_left_out_and_told(results: Path) -> None:
    whole = gallery(sources(results), Packing()).size / 1e6
    found = gallery(sources(results), Packing(max_mb=0.7 * whole))
    assert list(found.originals) == ["one.png"] and found.size < 0.7e6 * whole
    assert "1 of 2 images" in found.problems[0] and "two.png" in found.problems[0]
    with pytest.raises(DataError, match="0 of 2 images; raise --max-mb"):
        gallery(sources(results), Packing(max_mb=0.001))


def test_images_are_chosen_by_name(results: Path) -> None:
    assert list(gallery(sources(results), Packing(), ["two"]).originals) == ["two.png"]
    with pytest.raises(DataError, match="--show three: no pictures of it; there are: one.png, two.png"):
        gallery(sources(results), Packing(), ["three"])


def test_without_originals_and_without_models(results: Path) -> None:
    found = gallery(sources(results, images=False), Packing())
    assert found.originals["one.png"].picture is None and (found.originals["one.png"].height, 160) == SIZE
    assert "No original was given for one.png, two.png" in found.problems[-1]
    anchor = results / "anchors" / "jpeg.json"
    alone = gallery(read_sources([anchor], [results / "ours.json"], None, "pchip"), Packing())
    assert len([row for curve, row in alone.shown if curve == 0]) == 16  # now it is the model: all of it


def test_no_pictures_at_all(results: Path) -> None:
    for file in (results / "ours.json", results / "anchors" / "jpeg.json"):
        document = json.loads(file.read_text())
        for row in document["images"]:
            del row["picture"]
        file.write_text(json.dumps(document))
    found = gallery(sources(results), Packing())
    assert (found.pictures, found.originals, found.problems) == ([], {}, [])


def test_jpeg_is_smaller_and_nearly_the_same(results: Path) -> None:
    image = read_image(results.parent / "images" / "one.png")
    exact, small = pack(image, "png"), pack(image, "jpeg")
    assert np.array_equal(unpack(exact), image)
    assert len(small.text) < 0.6 * len(exact.text) and psnr(image, unpack(small)) > 35  # it is noisy
