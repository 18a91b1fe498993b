"""RD files: ours, CompressAI's, and files that are neither."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from compressai.utils.plot.__main__ import main as compressai_plot

from jointiq.errors import DataError
from jointiq.evaluation.rd import ImageRow, RDCurve, curve_from_rows, read_rd, write_rd

ROW = ImageRow(
    checkpoint="a.ckpt", image="one.png", width=200, height=100, bytes=1000, bpp=0.4, bpp_payload=0.39,
    bpp_exact=0.389, bpp_estimate=0.388, bpp_y=0.36, bpp_z=0.028, psnr=30.0, psnr_mid=29.0, ms_ssim=0.95,
    encoding_time=1.0, decoding_time=2.0, latents_equal=True,
)  # fmt: skip


def two_points() -> RDCurve:
    high = [ROW, replace(ROW, image="two.png", bpp=0.6, psnr=32.0, ms_ssim=None, decoding_time=4.0)]
    low = [replace(row, checkpoint="b.ckpt", bpp=row.bpp / 2, psnr=row.psnr - 3) for row in high]
    return curve_from_rows("ours", [("a.ckpt", high), ("b.ckpt", low)], "a test")


def test_points_are_means_over_images_sorted_by_rate() -> None:
    curve = two_points()
    assert curve.bpp == pytest.approx((0.25, 0.5))
    assert curve.parameter == ("b.ckpt", "a.ckpt")
    assert curve.results["psnr-rgb"] == pytest.approx((28.0, 31.0))
    assert curve.results["ms-ssim-rgb"] == pytest.approx((0.95, 0.95))  # of the one image that is large enough
    assert curve.results["decoding_time"] == pytest.approx((3.0, 3.0))
    assert [row["checkpoint"] for row in curve.images] == ["b.ckpt", "b.ckpt", "a.ckpt", "a.ckpt"]


def test_points_between_two_rates() -> None:
    curve = two_points().between(0.3, 0.5)
    assert curve.bpp == pytest.approx((0.5,)) and curve.parameter == ("a.ckpt",) and not curve.images
    assert curve.results["psnr-rgb"] == pytest.approx((31.0,))


def test_ms_ssim_is_left_out_where_no_image_has_it() -> None:
    curve = curve_from_rows("small", [("a", [replace(ROW, ms_ssim=None)])])
    assert "ms-ssim-rgb" not in curve.results
    assert curve.results["psnr-rgb"] == (30.0,)


def test_round_trip(tmp_path: Path) -> None:
    curve = two_points().with_about({"version": "1.2", "settings": [1, 2]})
    paths = write_rd(tmp_path / "new" / "ours.json", curve)
    assert paths == [tmp_path / "new" / "ours.json", tmp_path / "new" / "ours.csv"]
    assert read_rd(paths[0]) == curve
    with paths[1].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == ["one.png", "two.png"] * 2
    assert rows[1]["ms_ssim"] == "" and float(rows[0]["bpp"]) == 0.2


@pytest.mark.parametrize("metric", ["psnr", "ms-ssim"])
def test_compressai_draws_our_file(tmp_path: Path, metric: str) -> None:
    matplotlib.use("Agg")
    file, _ = write_rd(tmp_path / "ours.json", two_points())
    picture = tmp_path / f"{metric}.png"
    compressai_plot(["-f", str(file), "-m", metric, "-o", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "document",
    [
        {"name": "x", "results": {"bpp": [2.0, 1.0], "psnr-rgb": [33.0, 30.0], "encoding_time": [1, 1]}},
        {"bpp": [2.0, 1.0], "psnr-rgb": [33.0, 30.0]},
        {"name": "x", "results": {"bpp": [1.0, 2.0], "psnr-rgb": [30, 33], "codec": ["a", "b"], "extra": {"a": 1}}},
    ],
)
def test_files_of_others_are_read_and_sorted(tmp_path: Path, document: dict) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    curve = read_rd(path)
    assert curve.name == "x"
    assert curve.bpp == (1.0, 2.0)
    assert curve.results["psnr-rgb"] == (30.0, 33.0)
    assert "codec" not in curve.results


def test_compressais_file_of_one_image_is_one_point(tmp_path: Path) -> None:
    path = tmp_path / "kodim01-net.json"
    path.write_text(json.dumps({"name": "net", "results": {"bpp": 0.3, "psnr-rgb": 28.0, "ms-ssim-rgb": 0.9}}))
    assert read_rd(path).bpp == (0.3,)


def per_image(folder: Path, image: str, checkpoint: str, bpp: float, name: str = "mbt2018") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results = {"psnr-rgb": 30 + bpp, "ms-ssim-rgb": 0.9, "bpp": bpp, "encoding_time": 1.0, "decoding_time": 2.0}
    document = {"source": image, "name": name, "description": "Inference (ans)", "results": results}
    (folder / f"{image}-{checkpoint}.json").write_text(json.dumps(document))


def test_compressais_files_of_many_images_are_a_curve(tmp_path: Path) -> None:
    """Two checkpoints, three images, one of them in a folder of its own; the curve's own file beside them."""
    for checkpoint, bpp in (("q2-ans", 0.5), ("q1-ans", 0.2)):
        per_image(tmp_path, "one", checkpoint, bpp)
        per_image(tmp_path, "two-b", checkpoint, bpp + 0.1)
        per_image(tmp_path / "more", "one", checkpoint, bpp + 0.2)
    (tmp_path / "curve.json").write_text(json.dumps({"name": "mbt2018-mse", "results": {"bpp": [0.3, 0.6]}}))
    curve = read_rd(tmp_path)
    assert curve.name == "mbt2018" and curve.parameter == ("q1-ans", "q2-ans")
    assert curve.bpp == pytest.approx((0.3, 0.6)) and curve.results["psnr-rgb"] == pytest.approx((30.3, 30.6))
    assert curve.results["decoding_time"] == (2.0, 2.0)
    assert [row["image"] for row in curve.images[:3]] == ["more/one", "one", "two-b"]


def test_folders_that_are_no_curve_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no per-image results"):
        read_rd(tmp_path)
    per_image(tmp_path, "one", "a-ans", 0.5)
    per_image(tmp_path, "one", "b-ans", 0.5, name="cheng2020-attn")
    with pytest.raises(DataError, match="several models: cheng2020-attn, mbt2018"):
        read_rd(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is no RD file"),
        ('{"results": [1]}', "is no RD file"),
        ('{"results": {"psnr-rgb": [30.0]}}', 'has no "bpp".*psnr-rgb'),
        ('{"results": {"bpp": []}}', '"bpp" holds no numbers'),
        ('{"results": {"bpp": ["a"]}}', '"bpp" holds no numbers'),
        ('{"results": {"bpp": [1.0, 2.0], "psnr-rgb": [30.0]}}', '"psnr-rgb" has 1 values but "bpp" has 2'),
        ('{"results": {"bpp": [1.0, null]}}', '"bpp" holds None'),
        ('{"results": {"bpp": [1.0], "psnr-rgb": [NaN]}}', '"psnr-rgb" holds nan'),
        ('{"results": {"bpp": [0.0], "psnr-rgb": [30.0]}}', "must be positive"),
        ('{"results": {"bpp": [1.0], "ms-ssim-rgb": [15.0]}}', "must be linear"),
        ('{"results": {"bpp": [1.0]}, "images": ["a.png"]}', "images\" holds 'a.png'"),
        ('{"results": {"bpp": [1.0]}, "images": [{"bpp": 1.0, "psnr": NaN}]}', '"images: psnr" holds nan'),
        ('{"results": {"bpp": [1.0]}, "images": [{"bpp": 1.0, "psnr": "30"}]}', "images: psnr\" holds '30'"),
        ('{"results": {"bpp": [1.0]}, "images": [{"bpp": [1.0]}]}', '"images: bpp" holds'),
        ('{"results": {"bpp": [1.0]}, "images": [{"bpp": 0}]}', '"images: bpp" must be positive'),
    ],
)
def test_what_is_no_curve_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_rd(path)
    assert "bad.json" in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.json: No such file"):
        read_rd(tmp_path / "none.json")
