"""The demo's steps with a stand-in for the model: pictures with one bit dropped, files of a known size."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from jointiq.coding.image_codec import Decoded, Encoded
from jointiq.data.images import read_image, write_png
from jointiq.data.sample import sample_images
from jointiq.errors import UserError
from jointiq.evaluation import demo as report
from jointiq.evaluation.metrics import psnr
from jointiq.evaluation.rd import read_rd

LATENT = torch.zeros(1, 1, 1, dtype=torch.int64)
HEADER = 24
SIZE = 1500


def fake_encode(model: object, image: np.ndarray) -> Encoded:
    height, width = image.shape[:2]
    name = height.to_bytes(2) + width.to_bytes(2)
    PICTURES[name] = image
    data = name + bytes(SIZE - 4)
    return Encoded(
        data,
        HEADER,
        SIZE - HEADER,
        {"y": 8.0 * 1400, "z": 8.0 * 70},
        {"y": 8.0 * 1401, "z": 8.0 * 70},
        {"z": LATENT, "y": LATENT},
        0.5,
    )


def fake_decode(model: object, data: bytes) -> Decoded:
    image = PICTURES[data[:4]]
    return Decoded(image & 0xF0, image & 0xC0, {"z": LATENT, "y": LATENT}, 0.25)


PICTURES: dict[bytes, np.ndarray] = {}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[report.Measured]:
    monkeypatch.setattr(report, "encode_image", fake_encode)
    monkeypatch.setattr(report, "decode_image", fake_decode)
    monkeypatch.setattr(report, "bit_map", lambda model, image: np.ones((11, 13)))
    photo = read_image(sample_images("test")[1])
    write_png(tmp_path / "in" / "large.png", photo[:170, :200])
    write_png(tmp_path / "in" / "small.png", photo[200:320, 100:260])
    ticks: list[int] = []
    files, pictures = tmp_path / "files", tmp_path / "decoded"
    coded = report.encode_files(None, sorted((tmp_path / "in").iterdir()), files, lambda: ticks.append(1))
    assert [item.file.name for item in coded] == ["large.jiq", "small.jiq"]
    for item in coded:
        write_png(pictures / f"{item.name}.png", fake_decode(None, item.file.read_bytes()).image)
    result = report.measure_files(None, coded, pictures, "c.ckpt", lambda: ticks.append(1))
    assert len(ticks) == 4
    return result


def test_measurements(measured: list[report.Measured]) -> None:
    row = measured[0].row
    pixels = 170 * 200
    assert (row.image, row.bytes, row.checkpoint) == ("large", SIZE, "c.ckpt")
    assert row.bpp == 8 * SIZE / pixels
    assert row.bpp_payload == 8 * (SIZE - HEADER) / pixels
    assert row.bpp_estimate == pytest.approx(8 * 1470 / pixels)
    original = measured[0].coded.original
    assert row.psnr == psnr(original, original & 0xF0) > row.psnr_mid == psnr(original, original & 0xC0)
    assert row.ms_ssim is not None and measured[1].row.ms_ssim is None


def test_what_is_measured_is_the_other_process_picture(measured: list[report.Measured], tmp_path: Path) -> None:
    item = measured[0].coded
    picture = np.clip((item.original & 0xF0).astype(int) + 1, 0, 255).astype(np.uint8)
    write_png(tmp_path / "decoded" / "large.png", picture)
    again = report.measure_files(None, [item], tmp_path / "decoded", "c.ckpt", int)
    assert again[0].row.psnr == psnr(item.original, picture) != measured[0].row.psnr
    write_png(tmp_path / "decoded" / "large.png", picture // 2)
    with pytest.raises(UserError, match="large: two decoders disagree"):
        report.measure_files(None, [item], tmp_path / "decoded", "c.ckpt", int)


def test_table_has_ours_the_anchors_and_the_means(measured: list[report.Measured]) -> None:
    rows = report.table_rows(measured, int)
    codecs = ["JointIQ-Net", "JPEG 4:2:0", "JPEG 2000"]
    expected = [(image, codec) for image in ("large", "small", "mean") for codec in codecs]
    assert [(row.image, row.codec) for row in rows] == expected
    for row in rows[:6]:
        assert row.bytes == pytest.approx(SIZE, rel=0.06)
    ours = rows[6]
    assert ours.psnr == pytest.approx((rows[0].psnr + rows[3].psnr) / 2)
    assert ours.ms_ssim == rows[0].ms_ssim
    assert (ours.bytes, ours.encoding_time, ours.decoding_time) == (SIZE, 0.5, 0.25)
    assert rows[7].bpp_estimate is None


@pytest.mark.slow
def test_report_files(measured: list[report.Measured], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = report.table_rows(measured, int)
    written = report.write_report(tmp_path / "out", measured, rows, "a title", int)
    names = {str(path.relative_to(tmp_path / "out")) for path in written}
    assert {"table.md", "table.csv", "rd.json", "rd.csv", "rd.png", "rd.svg", "pictures.png"} <= names
    assert {"anchors/jpeg_420.json", "anchors/jpeg2000.json"} <= names
    assert all(path.stat().st_size for path in written)
    with (tmp_path / "out" / "table.csv").open() as stream:
        assert [row["bytes"] for row in csv.DictReader(stream)] == [str(row.bytes) for row in rows]
    markdown = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert markdown[0].startswith("# Held-out") and len(markdown) == 4 + len(rows)
    assert len({line.count("|") for line in markdown[2:]}) == 1
    assert read_rd(tmp_path / "out" / "rd.json").bpp[0] == pytest.approx(rows[6].bpp)
    assert len(read_rd(tmp_path / "out" / "anchors" / "jpeg2000.json")) == 13
    report.demo_table(rows).print()
    assert capsys.readouterr().out.count("JointIQ-Net") == 3


def test_stale_files_do_not_reach_the_decoder(measured: list[report.Measured], tmp_path: Path) -> None:
    (tmp_path / "files" / "old.jiq").write_bytes(b"of another model")
    report.encode_files(None, [tmp_path / "in" / "large.png"], tmp_path / "files", int)
    assert [path.name for path in (tmp_path / "files").iterdir() if path.name == "old.jiq"] == []


def test_a_failing_decoder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.sys, "executable", "false")
    with pytest.raises(UserError, match="separate process failed with exit code 1"):
        report.decode_in_another_process(tmp_path, tmp_path, tmp_path / "c.ckpt")
