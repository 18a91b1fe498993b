"""Bit depth and colours of the samples of an image file: more than 8 bits are refused, profiles become sRGB."""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

#: Names of 16-bit samples in Pillow's raw modes: "RGB;16B". "BGR;16" is a pixel of 5, 6 and 5 bits.
_DEEP_RAW = re.compile(r";(12|16[BLN]|32)")
#: TIFF's tag BitsPerSample.
_BITS_PER_SAMPLE = 258
#: A profile that moves no colour of the test grid by more levels than this counts as sRGB.
_SRGB_LEVELS = 2
#: So does a gamma within this of 1 / 2.2.
_GAMMA_TOLERANCE = 0.05
_SRGB = ImageCms.createProfile("sRGB")


def is_deep(image: Image.Image, head: bytes) -> bool:
    """Tell whether an opened image has more than 8 bits a sample, which Pillow silently cuts to 8.

    Args:
        image: not loaded yet.
        head: the first bytes of its file.
    """
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 1)
        return max(bits) > 8 if isinstance(bits, tuple) else bits > 8
    if image.format in ("BMP", "DIB"):
        return False
    if image.format == "JPEG2000":
        return _jpeg_2000_bits(head) > 8
    if image.format == "AVIF":
        # The box av1C: a marker, profile and level, then a byte whose second bit is high_bitdepth.
        at = head.find(b"av1C")
        return at >= 0 and bool(head[at + 6 : at + 7] and head[at + 6] & 0x40)
    if image.format == "HEIF":
        return int(image.info.get("bit_depth", 8)) > 8
    arguments = [one for tile in getattr(image, "tile", ()) for one in _flat(tile[3])]
    if image.format == "PPM":
        # The largest sample, where it is not the 255 of the raw decoder.
        return any(isinstance(one, int) and one > 255 for one in arguments)
    return any(isinstance(one, str) and _DEEP_RAW.search(one) for one in arguments)


def _flat(arguments: object) -> tuple[object, ...]:
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _jpeg_2000_bits(head: bytes) -> int:
    """Return the largest precision of a component, from the marker SIZ that starts every codestream."""
    at = head.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(head) < at + 42:
        return 0
    (components,) = struct.unpack_from(">H", head, at + 40)
    return max(((size & 0x7F) + 1 for size in head[at + 42 : at + 42 + 3 * components : 3]), default=0)


def to_srgb(image: Image.Image, note: Callable[[str], object]) -> Image.Image:
    """Return an image of mode RGB or L as RGB with sRGB's colours.

    The samples of an image with a colour profile that is not sRGB are converted (Pillow's ImageCms, relative
    colorimetric), and those of a PNG with another gamma than sRGB's and no profile as PNG prescribes.

    Args:
        note: called with what was done, such as "Display P3 to sRGB"; not called where samples stay as stored.
    """
    profile = image.info.get("icc_profile")
    if profile:
        return _by_profile(image, profile, note)
    gamma = image.info.get("gamma")
    rgb = image.convert("RGB")
    if image.format != "PNG" or not gamma or "srgb" in image.info or abs(2.2 * gamma - 1) < _GAMMA_TOLERANCE:
        return rgb
    note(f"gamma {gamma:g} to sRGB")
    table = [round(255 * math.pow(level / 255, 1 / (2.2 * gamma))) for level in range(256)]
    return rgb.point(3 * table)


def _by_profile(image: Image.Image, data: bytes, note: Callable[[str], object]) -> Image.Image:
    mode = image.mode
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        transform = ImageCms.buildTransform(
            profile,
            _SRGB,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        grid = _grid(mode)
        moved = np.asarray(ImageCms.applyTransform(grid, transform)).astype(int) - np.asarray(grid.convert("RGB"))
        if np.abs(moved).max() <= _SRGB_LEVELS:
            return image.convert("RGB")
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None  # only a conversion in place gives None
        name = " ".join(ImageCms.getProfileDescription(profile).split())
    except Exception:
        # A damaged profile may raise anything; without one, samples are sRGB.
        note("its colour profile cannot be used and is ignored")
        return image.convert("RGB")
    note(f"{name or 'its colour profile'} to sRGB")
    return converted


def _grid(mode: str) -> Image.Image:
    """Return colours from all of the RGB cube (or greys), to test a profile with."""
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    cube: NDArray[np.uint8] = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    return Image.fromarray(cube)
