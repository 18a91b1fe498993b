"""The images that patches are cut from: which are large enough, and which repeat others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jointiq.data.images import pixel_hash, read_image
from jointiq.errors import DataError
from jointiq.files import FileFacts
from jointiq.runtime import usable_cores

#: Bits of a fingerprint.
FINGERPRINT_BITS = 64


@dataclass(frozen=True)
class Source:
    """An image file.

    Attributes:
        path: the file.
        sha256: of its pixels (:func:`jointiq.data.images.pixel_hash`).
        height, width: in pixels.
        fingerprint: perceptual hash of 64 bits (:func:`difference_hash`).
    """

    path: Path
    sha256: str
    height: int
    width: int
    fingerprint: int

    def places(self, side: int) -> int:
        """Return the number of squares of ``side`` pixels in it."""
        return max(self.height - side + 1, 0) * max(self.width - side + 1, 0)


def look(path: Path) -> Source:
    """Read an image and describe it.

    Raises:
        DataError: it cannot be read.
    """
    image = read_image(path)
    height, width, _ = image.shape
    return Source(path, pixel_hash(image), height, width, difference_hash(image))


def look_at_all(
    paths: Sequence[Path], known: FileFacts, advance: Callable[[], object]
) -> tuple[list[Source], dict[str, str]]:
    """Describe all images, several at a time; and the reason for each that cannot be read, by path.

    Args:
        known: descriptions from earlier; new ones are added.
        advance: called after each image.
    """

    def one(path: Path) -> Source | str:
        try:
            source = _known(known, path) or look(path)
        except DataError as error:
            return str(error)
        finally:
            advance()
        known.set(path, {key: value for key, value in asdict(source).items() if key != "path"})
        return source

    # Threads suffice: decoding and hashing release the interpreter lock.
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(zip(paths, pool.map(one, paths), strict=True))
    sources = [source for _, source in found if isinstance(source, Source)]
    return sources, {str(path): reason for path, reason in found if isinstance(reason, str)}


def _known(known: FileFacts, path: Path) -> Source | None:
    try:
        return Source(path, **known.get(path))
    except TypeError:  # nothing is known, or it is of another version
        return None


def choose(sources: Sequence[Source], side: int, distance: int | None) -> tuple[list[Source], dict[str, str]]:
    """Return the images that patches are cut from, in the order of their hashes; and why others are left out, by path.

    Left out are images smaller than ``side``, copies (the same pixels), and, with a ``distance``, those whose
    perceptual hash differs in at most that many bits from that of one that is kept.
    """
    kept: dict[str, Source] = {}
    bits = np.zeros((0, FINGERPRINT_BITS), dtype=bool)
    left_out: dict[str, str] = {}
    for source in sorted(sources, key=lambda one: (one.sha256, str(one.path))):
        own = np.array([source.fingerprint >> bit & 1 for bit in range(FINGERPRINT_BITS)], dtype=bool)
        if source.places(side) == 0:
            left_out[str(source.path)] = f"{source.width}x{source.height} pixels, smaller than a patch"
        elif source.sha256 in kept:
            left_out[str(source.path)] = f"the same pixels as {kept[source.sha256].path}"
        elif distance is not None and len(kept) and (apart := (bits != own).sum(1)).min() <= distance:
            nearest = list(kept.values())[int(apart.argmin())]
            left_out[str(source.path)] = f"nearly the same as {nearest.path} ({apart.min()} of 64 bits apart)"
        else:
            kept[source.sha256] = source
            bits = np.concatenate([bits, own[None]])
    return list(kept.values()), left_out


def difference_hash(image: NDArray[np.uint8]) -> int:
    """Return 64 bits of a picture that hardly change with scaling, compression or slight cropping (dHash).

    Of the grey picture, scaled to 9x8: whether each pixel is brighter than the one on its right.
    """
    small = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, :-1] > small[:, 1:]).flatten()
    return int("".join("1" if bit else "0" for bit in bits), 2)
