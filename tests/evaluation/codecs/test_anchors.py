"""Classical codecs: real files, real sizes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from jointiq.data.images import read_image
from jointiq.data.sample import sample_images
from jointiq.evaluation.codecs.anchors import CODECS, code, mean_curve, nearest_rate
from jointiq.evaluation.metrics import psnr


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return read_image(sample_images("test")[1])[:200, 100:300]


@pytest.mark.parametrize(("name", "kind"), [("jpeg_420", "JPEG"), ("jpeg_444", "JPEG"), ("jpeg2000", "JPEG2000")])
def test_points_are_real_files(photo: np.ndarray, name: str, kind: str) -> None:
    codec = CODECS[name]
    settings = codec.settings[2], codec.settings[6]
    low, high = (code(codec, photo, setting) for setting in settings)
    for point, setting in zip((low, high), settings, strict=True):
        data = codec.encode(photo, setting)
        picture = Image.open(io.BytesIO(data))
        assert picture.format == kind
        assert point.bytes == len(data)
        assert point.bpp == 8 * len(data) / (200 * 200)
        assert np.array_equal(point.image, np.asarray(picture))
        assert point.psnr == psnr(photo, point.image)
        assert point.ms_ssim is not None
    assert low.bytes < high.bytes and low.psnr < high.psnr


def test_jpeg_chroma_formats(photo: np.ndarray) -> None:
    layers = {}
    for name in ("jpeg_420", "jpeg_444"):
        with Image.open(io.BytesIO(CODECS[name].encode(photo, 50))) as picture:
            layers[name] = [layer[1:3] for layer in picture.layer]  # sampling factors of Y, Cb, Cr
    assert layers["jpeg_420"] == [(2, 2), (1, 1), (1, 1)]
    assert layers["jpeg_444"] == [(1, 1), (1, 1), (1, 1)]


def test_jpeg2000_uses_the_colour_transform(photo: np.ndarray) -> None:
    with_transform = code(CODECS["jpeg2000"], photo, 0.5)
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[48])
    without = np.asarray(Image.open(stream))
    assert with_transform.bytes == pytest.approx(len(stream.getvalue()), rel=0.03)
    assert with_transform.psnr > psnr(photo, without) + 1.0


def test_jpeg2000_by_quality_reaches_it(photo: np.ndarray) -> None:
    points = [code(CODECS["jpeg2000_db"], photo, setting) for setting in (28, 34)]
    assert [point.psnr for point in points] == pytest.approx([28, 34], abs=1.2)


@pytest.mark.parametrize("name", ["jpeg_420", "jpeg_444"])
def test_nearest_rate_beats_every_quality(photo: np.ndarray, name: str) -> None:
    codec = CODECS[name]
    sizes = {quality: 8 * len(codec.encode(photo, quality)) / 40_000 for quality in range(1, 101)}
    for target in (0.1, 0.45, 1.3, 50.0):
        found = nearest_rate(codec, photo, target)
        best = min(abs(size - target) for size in sizes.values())
        assert abs(found.bpp - target) <= best + 0.002 * target


def test_nearest_rate_with_a_continuous_knob(photo: np.ndarray) -> None:
    for name in ("jpeg2000", "jpeg2000_db"):
        for target in (0.21, 0.9):
            assert nearest_rate(CODECS[name], photo, target).bpp == pytest.approx(target, rel=0.02)


def test_a_rate_out_of_reach_gives_the_smallest_file(photo: np.ndarray) -> None:
    codec = CODECS["jpeg_420"]
    assert nearest_rate(codec, photo, 0.001).bytes == min(len(codec.encode(photo, quality)) for quality in range(1, 9))
    small = photo[:3, :5]
    assert nearest_rate(CODECS["jpeg2000"], small, 0.5).image.shape == (3, 5, 3)


def test_mean_curve(photo: np.ndarray) -> None:
    ticks = []
    images = [("a", photo), ("b", photo[:170, :180])]
    curve = mean_curve(CODECS["jpeg_420"], images, (10, 50), advance=lambda: ticks.append(1))
    points = [[code(CODECS["jpeg_420"], image, setting) for _, image in images] for setting in (10, 50)]
    assert curve.name == "JPEG 4:2:0"
    assert curve.parameter == (10, 50)
    assert curve.bpp == pytest.approx([(a.bpp + b.bpp) / 2 for a, b in points])
    assert curve.results["psnr-rgb"] == pytest.approx([(a.psnr + b.psnr) / 2 for a, b in points])
    assert [row["image"] for row in curve.images] == ["a", "b", "a", "b"]
    assert len(ticks) == 4
