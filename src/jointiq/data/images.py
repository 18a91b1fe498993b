"""Image files in and out: 8-bit RGB arrays, clear errors for everything else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from jointiq.errors import DataError
from jointiq.files import atomic_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")

_ALLOWED = "allowed: 8-bit RGB or grey, without transparency"
_READ_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """The image in ``path`` as (height, width, 3) RGB.

    Grey, two-level and palette images are converted; so are images with an alpha channel that is opaque everywhere. The
    orientation a camera has noted is applied.

    Raises:
        DataError: no such file, not an image, damaged, more than 8 bits a sample, transparent, animated, or in another
            colour space.
    """
    with _open(path) as image:
        _refuse_deep(path, image)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise DataError(f"{path} has {frames} frames; allowed: one")
        try:
            upright = ImageOps.exif_transpose(image)
            upright.load()
        except _READ_ERRORS as error:
            raise DataError(f"{path} is damaged: {error}") from error
        return np.array(_to_rgb(path, upright), dtype=np.uint8)


def pixel_hash(image: NDArray[np.uint8]) -> str:
    """SHA-256 of the shape and the pixels of (height, width, 3): the same for copies in other lossless formats."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def named_images(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Each image with a name of its own: the file's, or its path below the folder that all are in."""
    if len({path.name for path in paths}) == len(paths):
        return [(path.name, path) for path in paths]
    root = os.path.commonpath([path.parent for path in paths])
    return [(path.relative_to(root).as_posix(), path) for path in paths]


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the image in ``path`` as it is stored, from its header alone.

    Raises:
        DataError: no such file, or not an image.
    """
    with _open(path) as image:
        return image.height, image.width


def write_png(path: str | Path, array: NDArray[np.uint8]) -> None:
    """Write (height, width, 3) RGB to ``path`` as PNG; the file appears whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")


def list_images(folder: str | Path, pattern: str = "**/*") -> list[Path]:
    """Image files in ``folder`` that match the glob ``pattern``, sorted; hidden ones are left out.

    Raises:
        DataError: no such folder, or no image in it; names folder, pattern and count.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (pattern {pattern!r}, 0 images)")
    try:
        matches = sorted(path for path in folder.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"{folder}: pattern {pattern!r} cannot be used: {error}") from error
    images = [
        path
        for path in matches
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not images:
        raise DataError(
            f"{folder}: 0 images match pattern {pattern!r} ({len(matches)} other files do); "
            f"allowed: {' '.join(suffix[1:] for suffix in SUFFIXES)}"
        )
    return images


def _open(path: str | Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that can be read; {_ALLOWED}") from error
    except _READ_ERRORS as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _refuse_deep(path: str | Path, image: Image.Image) -> None:
    """Refuse more than 8 bits a sample, which Pillow would cut to 8 without a word for colour images."""
    deep = image.mode.startswith(("I", "F"))
    for tile in getattr(image, "tile", ()):
        deep = deep or any(_is_deep(value) for value in _flat(tile[3]))
    if deep:
        raise DataError(f"{path} has more than 8 bits a sample; {_ALLOWED}")


def _is_deep(argument: Any) -> bool:
    # Raw modes such as "RGB;16B", or the largest sample value of a PPM file.
    if isinstance(argument, str):
        return ";16" in argument or ";12" in argument
    return isinstance(argument, int) and 255 < argument <= 65535


def _flat(arguments: Any) -> tuple[Any, ...]:
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _to_rgb(path: str | Path, image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise DataError(f"{path} is transparent in places; {_ALLOWED}")
    elif image.mode not in ("RGB", "L", "1", "P"):
        raise DataError(f"{path} has colour mode {image.mode}; {_ALLOWED}")
    return image.convert("RGB")
