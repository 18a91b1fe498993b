"""Image files: read as 8-bit sRGB arrays, written as PNG, listed in folders; one-line errors for all else."""

from __future__ import annotations

import ctypes
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from jointiq.data.samples import is_deep, to_srgb
from jointiq.errors import DataError
from jointiq.files import atomic_path, list_files

#: Suffixes of the image files in a folder.
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".jp2", ".j2k", ".avif", ".heic",
    ".heif",
)  # fmt: skip

#: The formats behind them, as Pillow calls them. It knows more, some of which it hands to other programs (EPS).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "PPM", "TIFF", "JPEG2000", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_ALLOWED = "allowed: 8-bit RGB or grey, without transparency"
#: Bytes at the start of a file in which the number of bits of its samples stands.
_HEAD = 1 << 16
#: The tag of a camera's orientation (EXIF 2.3), and how to turn the image upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What libtiff prints of a damaged file is raised as well.
with suppress(OSError, AttributeError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)
#: Text of the field Software in every picture of :func:`write_png`.
_SOFTWARE = "JointIQ-Net"


def _ignore(_note: str) -> None:
    pass


def read_image(path: str | Path, note: Callable[[str], object] = _ignore) -> NDArray[np.uint8]:
    """Read the image in ``path`` as (height, width, 3) uint8, sRGB.

    Grey, two-level and palette images are converted; so are images with an alpha channel that is opaque everywhere. The
    orientation in the file is applied. Colours of another profile are converted to sRGB.

    Args:
        note: called with what was done to the colours, if anything, such as "Display P3 to sRGB".

    Raises:
        DataError: no such file, not an image, damaged, more than 8 bits a sample, transparent, animated, or in another
            colour space.
    """
    with _open(path) as image, _damaged(path):
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if is_deep(image, head):
            raise DataError(f"{path} has more than 8 bits a sample; {_ALLOWED}")
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise DataError(f"{path} has {frames} frames; allowed: one")
        return _to_array(image, str(path), note)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image in memory, as :func:`read_image` does one in a file.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _damaged("the image"):
        if is_deep(image, b""):
            raise DataError(f"the image has more than 8 bits a sample; {_ALLOWED}")
        return _to_array(image, "the image", _ignore)


def _to_array(image: Image.Image, name: str, note: Callable[[str], object]) -> NDArray[np.uint8]:
    # Of the tags nothing but the orientation is read: others may be of any sort. TIFF is turned when it is loaded.
    turn = _turn(image)
    image.load()
    if image.format == "TIFF":
        turn = _turn(image)
    opaque = _opaque(image, name)
    rgb = to_srgb(opaque, note)
    return np.array(rgb if turn is None else rgb.transpose(turn), dtype=np.uint8)


def _turn(image: Image.Image) -> Image.Transpose | None:
    if image.format == "HEIF":
        return None  # decoding has turned it, and its EXIF says nothing about that
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Pillow on damaged tags: without them the image stays as it is.
        return None


def _opaque(image: Image.Image, name: str) -> Image.Image:
    """Return the image as RGB or L, if it is opaque."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise DataError(f"{name} is transparent in places; {_ALLOWED}")
    elif image.mode not in ("RGB", "RGBX", "YCbCr", "L", "1", "P"):
        raise DataError(f"{name} has colour mode {image.mode}; {_ALLOWED}")
    plain = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    # A conversion forgets where the image is from.
    plain.info, plain.format = image.info, image.format
    return plain


def pixel_hash(image: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of shape and pixels of (height, width, 3): copies in other lossless formats have the same."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def named_images(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return each image with a unique name: the file's, or its path below the folder that all are in."""
    if len({path.name for path in paths}) == len(paths):
        return [(path.name, path) for path in paths]
    root = os.path.commonpath([path.parent for path in paths])
    return [(path.relative_to(root).as_posix(), path) for path in paths]


def image_size(path: str | Path) -> tuple[int, int]:
    """Return height and width of the image in ``path`` as it is stored, from its header alone.

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
    written_by = PngInfo()
    written_by.add_text("Software", _SOFTWARE)
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG", pnginfo=written_by)


def is_ours(path: str | Path) -> bool:
    """Tell whether a file is a picture of :func:`write_png`."""
    try:
        with _open(path) as image:
            return image.info.get("Software") == _SOFTWARE
    except DataError:
        return False


def list_images(
    folder: str | Path, pattern: str = "**/*", locked: Callable[[OSError], object] | None = None
) -> list[Path]:
    """List the image files in ``folder`` that match the glob ``pattern``, sorted; hidden ones are left out.

    Args:
        locked: called for each subfolder that cannot be read; None: that is an error.

    Raises:
        DataError: no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (pattern {pattern!r}, 0 images)")
    files = list_files(folder, pattern) if locked is None else list_files(folder, pattern, locked)
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        raise DataError(
            f"{folder}: 0 images match pattern {pattern!r} ({len(files)} other files do); "
            f"allowed: {' '.join(suffix[1:] for suffix in SUFFIXES)}"
        )
    return images


@contextmanager
def _open(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file, without Pillow's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _identified(path) as image:
            yield image


def _identified(path: str | Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        if _is_heif(path):
            return _open_heif(path)
        if os.path.getsize(path) == 0:
            raise DataError(f"{path} is empty") from error
        raise DataError(f"{path} is not an image of a format that can be read ({', '.join(_FORMATS)}, HEIC)") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _is_heif(path: str | Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _open_heif(path: str | Path) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise DataError(
            f"{path} is a HEIC image, which needs the package pillow-heif; allowed: pip install pillow-heif, or "
            "another format"
        ) from error
    try:
        image: Image.Image = HeifImageFile(path)
    except Exception as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return image


@contextmanager
def _damaged(name: str | Path) -> Iterator[None]:
    """Turn any error of Pillow and its plugins into one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} is damaged: {error}") from error
