"""Classical image codecs as anchors, with the sizes of real files and PSNR against the original RGB.

A codec is a :class:`Codec`: two functions and the range of one knob. To add one, write its ``encode`` (and a
``decode`` unless Pillow reads the format) and put it into :data:`CODECS`.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image as PillowImage

from src.evaluation.metrics import Image, ms_ssim, psnr
from src.evaluation.rd import RDCurve, Row, curve_from_rows


def pillow_decode(data: bytes) -> Image:
    """Decode any file Pillow knows to uint8 RGB (H, W, 3)."""
    with PillowImage.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


@dataclass(frozen=True)
class Codec:
    """A codec with one knob that makes files larger when it rises.

    ``settings`` are the points of its RD curve, ``low`` and ``high`` the knob's whole range; ``step`` is 1 for integer
    knobs and 0 for continuous ones. ``is_rate``: the knob is a wanted bpp, which the encoder meets roughly.
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


@dataclass(frozen=True)
class AnchorPoint:
    """One image at one setting: size of the whole file, quality (dB; MS-SSIM linear), the picture, seconds."""

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

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec("jpeg_420", "JPEG 4:2:0", "quality", partial(_jpeg, subsampling=2), _JPEG_QUALITIES, 1, 100, step=1),
        Codec("jpeg_444", "JPEG 4:4:4", "quality", partial(_jpeg, subsampling=0), _JPEG_QUALITIES, 1, 100, step=1),
        Codec(
            "jpeg2000",
            "JPEG 2000",
            "bpp asked for",
            partial(_jpeg2000, mode="rates"),
            _JPEG2000_RATES,
            0.002,
            24.0,
            is_rate=True,
        ),
        Codec(
            "jpeg2000_db",
            "JPEG 2000 (fixed PSNR)",
            "dB asked for",
            partial(_jpeg2000, mode="dB"),
            (26, 28, 30, 32, 34, 36, 38, 40),
            10.0,
            60.0,
        ),
    )
}


def code(codec: Codec, image: Image, setting: float) -> AnchorPoint:
    """Encode and decode ``image`` (uint8, (H, W, 3)) and measure it."""
    started = time.perf_counter()
    data = codec.encode(image, setting)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    finished = time.perf_counter()
    return AnchorPoint(
        codec=codec.name,
        setting=setting,
        bytes=len(data),
        bpp=bits_per_pixel(len(data), image),
        psnr=psnr(image, decoded),
        ms_ssim=ms_ssim(image, decoded),
        image=decoded,
        encoding_time=encoded - started,
        decoding_time=finished - encoded,
    )


def bits_per_pixel(size: int, image: Image) -> float:
    """Bits per pixel of ``size`` bytes spent on ``image`` (H, W, 3)."""
    return 8.0 * size / (image.shape[0] * image.shape[1])


def rd_points(codec: Codec, image: Image, settings: Iterable[float] | None = None) -> list[AnchorPoint]:
    """Code ``image`` at each setting (default: the codec's own)."""
    return [code(codec, image, setting) for setting in (codec.settings if settings is None else settings)]


def nearest_rate(codec: Codec, image: Image, target_bpp: float, tolerance: float = 0.002) -> AnchorPoint:
    """Code ``image`` at the setting whose real file size is nearest to ``target_bpp``.

    Bisection over the knob; it stops once a file is within ``tolerance`` (relative) of the target. A target out of the
    codec's reach gives its smallest or largest file.
    """
    tried: dict[float, float] = {}

    def rate(setting: float) -> float:
        if setting not in tried:
            tried[setting] = bits_per_pixel(len(codec.encode(image, setting)), image)
        return tried[setting]

    low, high = codec.low, codec.high
    setting = min(max(target_bpp, low), high) if codec.is_rate else _middle(codec, low, high)
    for _ in range(24):
        found = rate(setting)
        if abs(found - target_bpp) <= tolerance * target_bpp:
            break
        low, high = (setting, high) if found < target_bpp else (low, setting)
        if high - low <= (codec.step or 1e-3 * high):
            rate(low), rate(high)
            break
        scaled = setting * target_bpp / found
        setting = scaled if codec.is_rate and low < scaled < high else _middle(codec, low, high)
    best = min(tried, key=lambda s: (abs(tried[s] - target_bpp), tried[s]))
    return code(codec, image, best)


def _middle(codec: Codec, low: float, high: float) -> float:
    """Halve an interval of the knob: integers stay integers, continuous knobs are halved on a log scale."""
    return (low + high) // 2 if codec.step else math.sqrt(low * high)


def point_row(image_name: str, point: AnchorPoint) -> Row:
    """Give a per-image row for an RD file."""
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
    """Give the RD curve of a codec over named images: each setting's mean over the images.

    ``advance`` is called after every coded picture (a progress bar's tick).
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
