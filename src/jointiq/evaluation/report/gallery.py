"""Pictures of a report's viewer: chosen, checked against the measurements, and packed within a size limit.

For each image all kept pictures of the models are shown, and of each anchor those nearest in rate. So any two codecs
can be compared at nearly equal rate without a report of all pictures.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from jointiq.data.images import read_image
from jointiq.errors import DataError
from jointiq.evaluation.metrics import Image, psnr
from jointiq.evaluation.pictures import picture_path
from jointiq.evaluation.rd import Row
from jointiq.evaluation.report.sources import Source, Sources

FORMATS = ("png", "jpeg")
JPEG_QUALITY = 95
#: A picture whose PSNR differs by more than this (dB) from its row's is not the one that was measured.
TOLERANCE = 0.005
MEGABYTE = 1e6


@dataclass(frozen=True)
class Packed:
    """A picture ready for the page: media type and base64 text."""

    media: str
    text: str


@dataclass(frozen=True)
class Original:
    """An image of the viewer: its size, the part shown (left, top, width, height), and the index of its picture."""

    width: int
    height: int
    shown: tuple[int, int, int, int]
    picture: int | None


@dataclass
class Gallery:
    """All pictures; ``shown`` maps curve and row index to a picture's index; ``problems`` are lines for the reader."""

    pictures: list[Packed] = field(default_factory=list)
    originals: dict[str, Original] = field(default_factory=dict)
    shown: dict[tuple[int, int], int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Size of the pictures in the page, in bytes."""
        return sum(len(picture.text) for picture in self.pictures)


@dataclass(frozen=True)
class _Choice:
    """A row whose picture is to be shown."""

    curve: int
    index: int
    row: Row
    file: Path


@dataclass(frozen=True)
class Packing:
    """How pictures are packed: ``kind`` of :data:`FORMATS`, longest side in pixels, and limit in megabytes of text."""

    kind: str = "png"
    max_side: int = 1024
    max_mb: float = 64.0


def gallery(
    sources: Sources,
    packing: Packing,
    wanted: Sequence[str] = (),
    advance: Callable[[str, int], object] = lambda image, total: None,
) -> Gallery:
    """Choose, check and pack the pictures.

    Args:
        sources: curves with rows whose ``picture`` names a file.
        packing: format and limits; images beyond the limit are left out and named in ``problems``.
        wanted: names of the images to show, with or without their suffix; empty: all.
        advance: called before each image with its name and the number of images.

    Raises:
        DataError: an image in ``wanted`` has no pictures, or not even one image fits.
    """
    found = _choices(sources)
    names = _wanted(list(found), wanted)
    result = Gallery()
    left_out: list[str] = []
    for name in names:
        advance(name, len(names))
        if left_out:
            left_out.append(name)
            continue
        before = len(result.pictures), dict(result.shown)
        _add_image(result, name, found[name], sources.originals.get(name), packing)
        if result.size > packing.max_mb * MEGABYTE:
            del result.pictures[before[0] :], result.originals[name]
            result.shown = before[1]
            left_out.append(name)
    if left_out:
        told = f"{packing.max_mb:g} MB hold the pictures of {len(names) - len(left_out)} of {len(names)} images"
        if len(left_out) == len(names):
            raise DataError(f"{told}; raise --max-mb, lower --max-side, or take --picture-format jpeg")
        result.problems.append(
            f"{told} (--max-mb; --picture-format jpeg takes less); not shown: {', '.join(left_out)}."
        )
    without = [name for name in result.originals if name not in sources.originals]
    if without:
        result.problems.append(f"No original was given for {', '.join(without)} (--images).")
    return result


def _wanted(names: list[str], wanted: Sequence[str]) -> list[str]:
    if not wanted:
        return names
    chosen = []
    for given in wanted:
        match = [name for name in names if given in (name, Path(name).stem, Path(name).name)]
        if not match:
            raise DataError(f"--show {given}: no pictures of it; there are: {', '.join(names) or 'none'}")
        chosen += match
    return list(dict.fromkeys(chosen))


def _choices(sources: Sources) -> dict[str, list[_Choice]]:
    """Return the rows whose pictures are shown, by image."""
    kept: dict[str, dict[int, list[_Choice]]] = {}
    for curve, source in enumerate(sources.all):
        for choice in _kept(curve, source):
            kept.setdefault(str(choice.row["image"]), {}).setdefault(curve, []).append(choice)
    chosen = {}
    for name in sorted(kept):
        ours = [choice for curve, of_curve in kept[name].items() if curve < len(sources.models) for choice in of_curve]
        theirs = [of_curve for curve, of_curve in kept[name].items() if curve >= len(sources.models)]
        nearest = [min(of_curve, key=lambda c: _distance(c, our)) for of_curve in theirs for our in ours]
        every = [choice for of_curve in theirs for choice in of_curve]
        both = {(choice.curve, choice.index): choice for choice in ours + (nearest if ours else every)}
        chosen[name] = list(both.values())
    return chosen


def _distance(one: _Choice, other: _Choice) -> float:
    return abs(math.log(one.row["bpp"] / other.row["bpp"]))


def _kept(curve: int, source: Source) -> Iterator[_Choice]:
    for index, row in enumerate(source.curve.images):
        file = picture_path(source.path, row)
        if file is not None and isinstance(row.get("image"), str):
            yield _Choice(curve, index, row, file)


def _add_image(result: Gallery, name: str, choices: Sequence[_Choice], original: Path | None, packing: Packing) -> None:
    reference = read_image(original) if original else None
    pictures: list[tuple[_Choice, Image]] = []
    for choice in choices:
        try:
            picture = read_image(choice.file)
        except DataError as error:
            result.problems.append(f"{error}.")
            continue
        problem = _mismatch(choice.row, picture, reference)
        if problem:
            result.problems.append(f"{choice.file}: {problem}; not shown.")
        else:
            pictures.append((choice, picture))
    image = reference if reference is not None else next((picture for _, picture in pictures), None)
    if image is None:
        return
    height, width = image.shape[:2]
    shown = _middle(width, height, packing.max_side)
    own = _append(result, reference, shown, packing) if reference is not None else None
    result.originals[name] = Original(width, height, shown, own)
    for choice, picture in pictures:
        if picture.shape == image.shape:
            result.shown[choice.curve, choice.index] = _append(result, picture, shown, packing)


def _mismatch(row: Row, picture: Image, reference: Image | None) -> str | None:
    """Return why a picture cannot be the one that was measured for ``row``; None: it can."""
    size = [row.get("height"), row.get("width")]
    if None not in size and list(picture.shape[:2]) != size:
        return f"is {picture.shape[1]}x{picture.shape[0]}, measured was {size[1]}x{size[0]}"
    if reference is None:
        return None
    if picture.shape != reference.shape:
        return "differs in size from the original"
    found = psnr(reference, picture)
    if abs(found - row["psnr"]) > TOLERANCE:
        return f"has {found:.2f} dB against the original, measured were {row['psnr']:.2f} dB"
    return None


def _middle(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Return the middle (left, top, width, height) of a picture, at most ``side`` wide and high."""
    across, down = min(width, side), min(height, side)
    return (width - across) // 2, (height - down) // 2, across, down


def _append(result: Gallery, picture: Image, shown: tuple[int, int, int, int], packing: Packing) -> int:
    left, top, width, height = shown
    result.pictures.append(pack(picture[top : top + height, left : left + width], packing.kind))
    return len(result.pictures) - 1


def pack(picture: Image, kind: str) -> Packed:
    """Pack a picture (uint8, (H, W, 3)) as PNG (exact) or as JPEG of quality 95 with full colour resolution."""
    stream = io.BytesIO()
    options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0} if kind == "jpeg" else {"compress_level": 6}
    PillowImage.fromarray(np.ascontiguousarray(picture)).save(stream, kind, **options)
    return Packed(f"image/{kind}", base64.b64encode(stream.getvalue()).decode("ascii"))
