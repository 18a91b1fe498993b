"""Which image files are read, and how the others are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jointiq.data.images import image_size, list_images, read_image, write_png
from jointiq.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    Image.fromarray(array, mode).save(path, **options)
    return path


def png_16bit_rgb(path: Path) -> Path:
    """A 1x1 16-bit RGB PNG, written by hand: Pillow cannot write one."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes(6))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def test_png_round_trip(tmp_path: Path) -> None:
    write_png(tmp_path / "deep" / "a.png", RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "deep" / "a.png"), RGB)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_grey_and_palette_are_converted(tmp_path: Path) -> None:
    grey = read_image(save(tmp_path / "grey.png", RGB[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(RGB[..., :1], 3, axis=2))
    Image.fromarray(RGB).quantize(256).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (5, 7, 3)


def test_alpha(tmp_path: Path) -> None:
    alpha = np.full((5, 7, 1), 255, np.uint8)
    opaque = save(tmp_path / "opaque.png", np.concatenate([RGB, alpha], 2))
    np.testing.assert_array_equal(read_image(opaque), RGB)
    alpha[0, 0] = 254
    with pytest.raises(DataError, match="transparent"):
        read_image(save(tmp_path / "clear.png", np.concatenate([RGB, alpha], 2)))


def test_deep_images_are_refused(tmp_path: Path) -> None:
    grey = save(tmp_path / "grey16.png", np.full((4, 4), 40000, np.uint16))
    for path in (grey, png_16bit_rgb(tmp_path / "rgb16.png")):
        with pytest.raises(DataError, match="more than 8 bits"):
            read_image(path)
    ppm = tmp_path / "deep.ppm"
    ppm.write_bytes(b"P6 1 1 65535\n" + bytes(6))
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(ppm)


def test_other_colour_spaces_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.jpg")
    with pytest.raises(DataError, match="colour mode CMYK"):
        read_image(tmp_path / "cmyk.jpg")


def test_unreadable_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    write_png(whole, np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no image")
    for name, message in (("cut.png", "damaged"), ("text.png", "not an image"), ("none.png", "no such file")):
        with pytest.raises(DataError, match=message):
            read_image(tmp_path / name)


def test_damaged_files_are_told_in_one_line_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for compression in ("tiff_lzw", "tiff_adobe_deflate"):
        Image.fromarray(RGB).resize((90, 80)).save(tmp_path / "a.tif", compression=compression)
        data = bytearray((tmp_path / "a.tif").read_bytes())
        data[500:1400] = b"\xff" * 900
        (tmp_path / "a.tif").write_bytes(data)
        with pytest.raises(DataError, match="a.tif is damaged"):
            read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.png", RGB, exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(RGB, -1))


def test_size_comes_from_the_header(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", RGB)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:92])
    assert image_size(tmp_path / "cut.png") == (5, 7)


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/a.jpg", ".hidden/c.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path, "**/*") == [tmp_path / "b.PNG", tmp_path / "sub" / "a.jpg"]
    assert list_images(tmp_path, "*.PNG") == [tmp_path / "b.PNG"]
    with pytest.raises(DataError, match=r"0 images match pattern '\*\.txt' \(1 other"):
        list_images(tmp_path, "*.txt")
    with pytest.raises(DataError, match="nowhere: no such folder .*0 images"):
        list_images(tmp_path / "nowhere", "**/*")
