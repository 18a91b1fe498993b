"""Pictures of every suffix, whole and damaged, which must end in an error of one line or in the written pixels."""

from __future__ import annotations

import io
import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jointiq.data.images import image_size, read_image
from jointiq.errors import DataError
from tools.fuzzing.damage import damage_bytes
from tools.fuzzing.worker import Case

#: Pillow's modes, suffixes and options of each format, and the largest mean difference that its coder may make.
FORMATS: tuple[tuple[str, str, str, dict[str, Any], float], ...] = (
    ("PNG", "RGB L 1 P LA RGBA", ".png", {}, 0),
    ("BMP", "RGB L 1 P", ".bmp", {}, 0),
    ("PPM", "RGB", ".ppm", {}, 0),
    ("PPM", "L", ".pgm", {}, 0),
    ("WEBP", "RGB RGBA", ".webp", {"lossless": True}, 0),
    ("JPEG2000", "RGB L", ".jp2", {}, 0),
    ("JPEG2000", "RGB L", ".j2k", {"no_jp2": True}, 0),
    ("TIFF", "RGB L 1 P RGBA", ".tif", {}, 0),
    ("TIFF", "RGB L P", ".tiff", {"big_endian": True}, 0),
    *(
        ("TIFF", "RGB L P RGBA", ".tif", {"compression": name}, 0)
        for name in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
    ),
    ("TIFF", "1", ".tif", {"compression": "group3"}, 0),
    ("TIFF", "1", ".tif", {"compression": "group4"}, 0),
    ("TIFF", "RGB L", ".tif", {"compression": "jpeg", "quality": 95}, 40),
    ("JPEG", "RGB L", ".jpg", {"quality": 95}, 40),
    ("JPEG", "RGB L", ".jpeg", {"quality": 95, "progressive": True, "subsampling": 0}, 40),
    ("WEBP", "RGB", ".webp", {"quality": 95}, 40),
    ("AVIF", "RGB", ".avif", {"quality": 95}, 40),
)
#: Formats that hold EXIF as Pillow writes them.
_WITH_EXIF = ("PNG", "WEBP", "JPEG", "AVIF")
_TAGS = (0x010E, 0x010F, 0x011A, 0x0128, 0x0132, 0x0211, 0x0213, 0x8769, 0x8825, 0x927C, 0xC4A5)
_ORIENTATION = 0x0112


class Pictures:
    """Whole pictures with EXIF blocks of all sorts, and damaged ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.written: dict[str, list[bytes]] = {}
        for number in range(8 * len(FORMATS)):
            case = self.whole(rng, number % len(FORMATS))
            self.written.setdefault(case.name, []).append(case.data)

    def case(self, rng: np.random.Generator) -> Case:
        """Return a whole picture, or a damaged one (``aim`` None)."""
        if rng.integers(2):
            return self.whole(rng, int(rng.integers(len(FORMATS))))
        names = sorted(self.written)
        name = names[int(rng.integers(len(names)))]
        return Case(name, damage_bytes(rng, self.written[name]))

    def whole(self, rng: np.random.Generator, number: int) -> Case:
        """Return a picture; ``aim`` is its pixels, how it may be turned, and the mean difference that is allowed."""
        kind, modes, suffix, options, difference = FORMATS[number]
        choices = modes.split()
        image = _image(rng, choices[int(rng.integers(len(choices)))])
        turns = [1]
        if kind in _WITH_EXIF and rng.integers(4):
            # Pillow reads the block of an AVIF itself.
            block, orientation = _exif(rng, sloppy=kind != "AVIF" and bool(rng.integers(2)))
            turns = list(range(1, 9)) if orientation is None else [orientation]
            options = {**options, "exif": block}
        written = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(written, kind, **options)
        return Case(f"a{suffix}", written.getvalue(), (np.asarray(image.convert("RGB")), turns, difference))

    def check(self, case: Case) -> None:
        path = self.folder / case.name
        path.write_bytes(case.data)
        height, width = image_size(path)
        try:
            image = read_image(path)
        except DataError as error:
            if case.aim is None:
                raise
            raise AssertionError(f"refused: {error}") from error
        assert image.dtype == np.uint8 and image.ndim == 3 and sorted(image.shape) == sorted((height, width, 3))
        if case.aim is None:
            return
        pixels, turns, difference = case.aim
        upright = [_turned(pixels, turn) for turn in turns]
        apart = [np.abs(image.astype(int) - one).mean() for one in upright if one.shape == image.shape]
        assert min(apart, default=math.inf) <= difference, f"other pixels: {apart}"


def target(folder: Path) -> Pictures:
    """Return the target of ``WHAT=pictures``."""
    return Pictures(folder)


def _image(rng: np.random.Generator, mode: str) -> Image.Image:
    """Return a smooth or noisy picture of 1 to 400 pixels a side, opaque."""
    height, width = (int(2 ** rng.uniform(0, 8.6)) for _ in range(2))
    rows, columns = np.mgrid[:height, :width] / 16.0
    planes = [128 + 100 * np.sin(rows * a + columns * b + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    values = np.stack(planes, -1) + rng.normal(0, 20 * int(rng.integers(2)), (height, width, 3))
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    return image.quantize(int(2 ** rng.integers(1, 9))) if mode == "P" else image.convert(mode)


def _exif(rng: np.random.Generator, sloppy: bool) -> tuple[bytes, int | None]:
    """Return an EXIF block and the orientation in it; None for a sloppy one, which may not be readable."""
    orientation = int(rng.integers(0, 10))
    big = bool(rng.integers(2))
    order, mark = (">", b"MM\0*") if big else ("<", b"II*\0")
    entries = [(_ORIENTATION, 3, 1, struct.pack(f"{order}HH", orientation, 0))]
    if sloppy:
        tags = rng.choice(_TAGS, 4).tolist()
        entries += [(tag, int(rng.integers(0, 15)), int(rng.integers(0, 9)), rng.bytes(4)) for tag in tags]
    body = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    block = bytearray(b"Exif\0\0" + mark + struct.pack(f"{order}IH", 8, len(entries)) + body + bytes(4))
    if sloppy:
        for _ in range(int(rng.integers(0, 4))):
            block[int(rng.integers(6, len(block)))] = int(rng.integers(256))
    return bytes(block), None if sloppy else orientation


def _turned(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return an image as its orientation asks (EXIF 2.3); others than 2 to 8 ask nothing."""
    if 5 <= orientation <= 8:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image
