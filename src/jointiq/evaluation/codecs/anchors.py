"""Classical image codecs as anchors, measured by the sizes of real files and the quality against the original RGB.

A codec is a :class:`Codec`: two functions and the range of one setting, its knob. To add one, write its ``encode`` (and
a ``decode`` unless Pillow reads the format) and add it to :data:`CODECS`. Codecs that not every installation has are in
:mod:`jointiq.evaluation.codecs.pillow` and :mod:`jointiq.evaluation.codecs.programs`.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import features

from jointiq.evaluation.metrics import Image, ms_ssim, psnr
from jointiq.evaluation.rd import RDCurve, Row, curve_from_rows


def pillow_decode(data: bytes) -> Image:
    """Decode a file of any format that Pillow reads to uint8 RGB (H, W, 3)."""
    with PillowImage.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


@dataclass(frozen=True)
class Coded:
    """One coded image: size of the file in bytes, decoded picture (uint8, (H, W, 3)), times in seconds."""

    size: int
    image: Image
    encoding_time: float
    decoding_time: float


@dataclass(frozen=True)
class Codec:
    """A codec with one knob.

    Attributes:
        name, label: in files, and in tables and plots.
        knob: what the setting means.
        encode, decode: from an image (uint8, (H, W, 3)) and a setting to the file's bytes, and back.
        settings: the points of its RD curve.
        low, high: the knob's range, from the smallest files to the largest (``low > high`` for a quantiser).
        step: 1 for an integer knob, 0 for a continuous one.
        is_rate: whether the knob is the wanted bpp, which the encoder meets roughly.
        options, colour, command, version: how the files are made, for the RD file.
    """

    name: str
    label: str
    knob: str
    encode: Callable[[Image, float], bytes]
    settings: tuple[float, ...]
    low: float
    high: float
    step: int = 0
    decode: Callable[[bytes], Image] = pillow_decode
    is_rate: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    colour: str = ""
    command: str = ""
    version: str = ""

    def size(self, image: Image, setting: float) -> int:
        """Return the bytes of a file of ``image`` (uint8, (H, W, 3))."""
        return len(self.encode(image, setting))

    def roundtrip(self, image: Image, setting: float) -> Coded:
        """Encode and decode ``image`` (uint8, (H, W, 3))."""
        started = time.perf_counter()
        data = self.encode(image, setting)
        encoded = time.perf_counter()
        decoded = self.decode(data)
        return Coded(len(data), decoded, encoded - started, time.perf_counter() - encoded)

    def about(self) -> dict[str, Any]:
        """Return how the files are made, for the RD file; two runs with equal values have equal rows."""
        return {
            "codec": self.name,
            "version": self.version,
            "knob": self.knob,
            "options": dict(self.options),
            "colour_space": self.colour,
            "command": self.command,
        }


@dataclass(frozen=True)
class AnchorPoint:
    """One image at one setting: size of the whole file, PSNR (dB), MS-SSIM (linear), decoded picture, seconds."""

    codec: str
    setting: float
    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float | None
    image: Image
    encoding_time: float
    decoding_time: float


def _jpeg(image: Image, quality: float, *, subsampling: int) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(image).save(stream, "JPEG", quality=int(quality), subsampling=subsampling, optimize=True)
    return stream.getvalue()


def _jpeg2000(image: Image, value: float, *, mode: str) -> bytes:
    # mct=1 turns the colour transform on; Pillow's default leaves it off, which costs about 2.4 dB.
    layer = 24.0 / value if mode == "rates" else value
    stream = io.BytesIO()
    PillowImage.fromarray(image).save(
        stream, "JPEG2000", irreversible=True, mct=1, quality_mode=mode, quality_layers=[layer]
    )
    return stream.getvalue()


_JPEG_QUALITIES = (1, 3, 5, 8, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)
_JPEG2000_RATES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.5, 2.0, 3.0)


def pillow_version(library: str) -> str:
    """Return the names and versions of Pillow and of the library that it codes with."""
    names = {"libjpeg_turbo": "libjpeg-turbo", "jpg_2000": "OpenJPEG", "webp": "libwebp", "avif": "libavif"}
    return f"Pillow {PillowImage.__version__}, {names[library]} {features.version(library) or 'of unknown version'}"


def _jpeg_codec(name: str, label: str, subsampling: int) -> Codec:
    return Codec(
        name,
        label,
        "quality",
        partial(_jpeg, subsampling=subsampling),
        _JPEG_QUALITIES,
        1,
        100,
        step=1,
        options={"subsampling": label.removeprefix("JPEG "), "optimize": True},
        colour=f"YCbCr BT.601 full range, {label.removeprefix('JPEG ')}, 8 bit",
        command=f'Image.save(FILE, "JPEG", quality=SETTING, subsampling={subsampling}, optimize=True)',
        version=pillow_version("libjpeg_turbo"),
    )


def _jpeg2000_codec(
    name: str, label: str, knob: str, mode: str, settings: tuple[float, ...], low: float, high: float
) -> Codec:
    layer = "24 / SETTING" if mode == "rates" else "SETTING"
    return Codec(
        name,
        label,
        knob,
        partial(_jpeg2000, mode=mode),
        settings,
        low,
        high,
        is_rate=mode == "rates",
        options={"irreversible": True, "mct": 1, "quality_mode": mode},
        colour="YCbCr BT.601 full range (irreversible colour transform), 4:4:4, 8 bit",
        command=(
            f'Image.save(FILE, "JPEG2000", irreversible=True, mct=1, quality_mode="{mode}", quality_layers=[{layer}])'
        ),
        version=pillow_version("jpg_2000"),
    )


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        _jpeg_codec("jpeg_420", "JPEG 4:2:0", 2),
        _jpeg_codec("jpeg_444", "JPEG 4:4:4", 0),
        _jpeg2000_codec("jpeg2000", "JPEG 2000", "bpp asked for", "rates", _JPEG2000_RATES, 0.002, 24.0),
        _jpeg2000_codec(
            "jpeg2000_db", "JPEG 2000 (fixed PSNR)", "dB asked for", "dB", (26, 28, 30, 32, 34, 36, 38, 40), 10.0, 60.0
        ),
    )
}


def code(codec: Codec, image: Image, setting: float) -> AnchorPoint:
    """Encode and decode ``image`` (uint8, (H, W, 3)) and measure it."""
    coded = codec.roundtrip(image, setting)
    return AnchorPoint(
        codec=codec.name,
        setting=setting,
        bytes=coded.size,
        bpp=bits_per_pixel(coded.size, image),
        psnr=psnr(image, coded.image),
        ms_ssim=ms_ssim(image, coded.image),
        image=coded.image,
        encoding_time=coded.encoding_time,
        decoding_time=coded.decoding_time,
    )


def bits_per_pixel(size: int, image: Image) -> float:
    """Return the bits per pixel of ``size`` bytes for ``image`` (H, W, 3)."""
    return 8.0 * size / (image.shape[0] * image.shape[1])


def nearest_rate(codec: Codec, image: Image, target_bpp: float, tolerance: float = 0.002) -> AnchorPoint:
    """Code ``image`` at the setting whose real file size is nearest to ``target_bpp``.

    The knob is bisected until a file is within ``tolerance`` (relative) of the target. A target out of the codec's
    range gives its smallest or largest file.
    """

    def rate(setting: float) -> float:
        return bits_per_pixel(codec.size(image, setting), image)

    tried: dict[float, float] = {}
    low, high = codec.low, codec.high
    setting = min(max(target_bpp, low), high) if codec.is_rate else _middle(codec, low, high)
    for _ in range(24):
        found = tried[setting] = rate(setting)
        if abs(found - target_bpp) <= tolerance * target_bpp:
            break
        low, high = (setting, high) if found < target_bpp else (low, setting)
        if abs(high - low) <= (codec.step or 1e-3 * max(high, low)):
            tried |= {end: rate(end) for end in (low, high) if end not in tried}
            break
        scaled = setting * target_bpp / found
        setting = scaled if codec.is_rate and low < scaled < high else _middle(codec, low, high)
    best = min(tried, key=lambda s: (abs(tried[s] - target_bpp), tried[s]))
    return code(codec, image, best)


def _middle(codec: Codec, low: float, high: float) -> float:
    """Return the middle of an interval of the knob: an integer for integer knobs, else the middle on a log scale."""
    return (low + high) // 2 if codec.step else math.sqrt(low * high)


def point_row(image_name: str, point: AnchorPoint) -> Row:
    """Return the row of an image for an RD file."""
    return {
        "codec": point.codec,
        "setting": point.setting,
        "image": image_name,
        "width": point.image.shape[1],
        "height": point.image.shape[0],
        "bytes": point.bytes,
        "bpp": point.bpp,
        "psnr": point.psnr,
        "ms_ssim": point.ms_ssim,
        "encoding_time": point.encoding_time,
        "decoding_time": point.decoding_time,
    }


def mean_curve(
    codec: Codec,
    images: Sequence[tuple[str, Image]],
    settings: Sequence[float] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> RDCurve:
    """Return the RD curve of a codec over named images: the mean over the images at each setting.

    ``advance`` is called after every coded image, for a progress bar.
    """
    points = []
    for setting in codec.settings if settings is None else settings:
        rows = []
        for name, image in images:
            rows.append(point_row(name, code(codec, image, setting)))
            advance()
        points.append((setting, rows))
    description = f"Pillow {PillowImage.__version__}, knob: {codec.knob}, real file sizes"
    return curve_from_rows(codec.label, points, description)
