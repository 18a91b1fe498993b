"""Cut random squares from images, no two equal, and write them to one array; a killed process can continue."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from jointiq.data.images import pixel_hash, read_image
from jointiq.data.prepare.sources import FINGERPRINT_BITS, Source
from jointiq.errors import ConfigError, DataError, UserError
from jointiq.files import write_text

# Imported late, by the functions: the settings and the command line do not wait for PyTorch and Lightning.
if TYPE_CHECKING:
    from jointiq.data.prepared import PatchRow

#: File of the settings and images that a working folder is for; for others it is begun anew.
SETTINGS = "settings.json"


@dataclass(frozen=True)
class PatchSettings:
    """Settings of a set of patches.

    Attributes:
        patches: number of patches.
        side: side of each, in pixels.
        seed: seed of all draws.
        min_zoom: a patch shows a square of side / zoom pixels, zoom uniform in [min_zoom, 1], scaled down.
        near_duplicates: images are left out whose perceptual hash differs in at most so many of 64 bits from that of
            another; None: only exact copies are.
    """

    patches: int = 51_140
    side: int = 256
    seed: int = 0
    min_zoom: float = 1.0
    near_duplicates: int | None = None

    def check(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value is not allowed.
        """
        for key in ("patches", "side"):
            if getattr(self, key) < 1:
                raise ConfigError(f"--{key}", getattr(self, key), "a whole number from 1 up")
        if self.seed < 0:
            raise ConfigError("--seed", self.seed, "a whole number from 0 up")
        if not 0 < self.min_zoom <= 1:
            raise ConfigError("--min-zoom", self.min_zoom, "a number from 0 (excluded) to 1")
        if self.near_duplicates is not None and not 0 <= self.near_duplicates <= FINGERPRINT_BITS // 2:
            raise ConfigError("--near-duplicates", self.near_duplicates, f"0 to {FINGERPRINT_BITS // 2} bits")

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch."""
        return self.side * self.side * 3


def cut_patches(
    sources: Sequence[Source], names: Mapping[str, str], settings: PatchSettings, work: Path, progress: Progress
) -> None:
    """Write ``patches.npy`` and ``patches.csv``; continue files of the same set.

    Args:
        sources: the images, in the order in which they are cut; where one has too few patches, later ones give more.
        names: names of the images in ``patches.csv``, by their hashes; without commas and quotes.
        work: folder to write into.

    Raises:
        DataError: the images do not hold that many different patches.
        UserError: the disk is too small.
    """
    from jointiq.data.prepared import LIST, PATCHES, PatchRow

    rows = _continued(names, settings, work)
    _require_space(work, (settings.patches - len(rows)) * settings.patch_bytes)
    done = {name: len(list(group)) for name, group in groupby(rows, key=lambda row: row.image)}
    last = rows[-1].image if rows else None
    seen = {row.sha256 for row in rows}
    task = progress.add_task("cut patches", total=settings.patches, completed=len(rows), note="")
    count, goes_on = 0, last is not None
    with (work / PATCHES).open("ab") as array, (work / LIST).open("a", encoding="utf-8") as listed:
        for index, source in enumerate(sources):
            name = names[source.sha256]
            if goes_on:
                count += done.get(name, 0)
                goes_on = name != last
                continue
            quota = math.ceil((settings.patches - count) / (len(sources) - index))
            squares = list(_squares(source, quota, settings, seen))
            for number, (place, patch, digest) in enumerate(squares, start=count):
                array.write(patch.tobytes())
                listed.write(_line(PatchRow(number, name, *place, digest)))
            count += len(squares)
            # Pixels first: a line says that its patch is on the disk.
            _to_disk(array)
            _to_disk(listed)
            progress.update(task, completed=count, note=source.path.name)
    if count < settings.patches:
        raise DataError(f"the images hold {count} different patches; allowed: --patches {count}, or more images")


def _squares(
    source: Source, quota: int, settings: PatchSettings, seen: set[str]
) -> Iterator[tuple[tuple[int, int, int], NDArray[np.uint8], str]]:
    """Yield up to ``quota`` patches of an image that differ from each other and from ``seen``, which grows."""
    from jointiq.data.patches import cut_square, draw_square

    image = read_image(source.path)
    rng = np.random.default_rng((settings.seed, int(source.sha256[:16], 16)))
    found = 0
    # Enough draws for an image that has that many different patches.
    for _ in range(10 * quota + 100):
        if found == quota:
            return
        place = draw_square(image.shape, settings.side, settings.min_zoom, rng)
        patch = cut_square(image, *place, settings.side)
        digest = pixel_hash(patch)
        if digest not in seen:
            seen.add(digest)
            found += 1
            yield place, patch, digest


def _continued(names: Mapping[str, str], settings: PatchSettings, work: Path) -> list[PatchRow]:
    """Return the lines of the images that are wholly cut; truncate the files to them, or begin another set anew."""
    from jointiq.data.prepared import LIST, PATCHES, PatchRow, read_rows

    wanted = json.dumps({"settings": asdict(settings), "names": names})
    told = work / SETTINGS
    rows: list[PatchRow] = []
    if told.is_file() and told.read_text(encoding="utf-8") == wanted and (work / LIST).is_file():
        rows = read_rows(work / LIST)
        # Of the last image some patches may be missing.
        last = rows[-1].image if rows else None
        rows = [row for row in rows if row.image != last]
    write_text(told, wanted)
    header = _header(settings)
    with (work / PATCHES).open("ab") as stream:
        if not rows:
            stream.truncate(0)
            stream.write(header)
        stream.truncate(len(header) + len(rows) * settings.patch_bytes)
    write_text(work / LIST, ",".join(PatchRow.__annotations__) + "\n" + "".join(map(_line, rows)))
    return rows


def _header(settings: PatchSettings) -> bytes:
    """Return the header of NumPy's file of the array; the pixels follow it."""
    stream = io.BytesIO()
    shape = (settings.patches, settings.side, settings.side, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _line(row: PatchRow) -> str:
    return ",".join(str(value) for value in asdict(row).values()) + "\n"


def _to_disk(stream: IO[Any]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free; allowed: another --output, or "
            "fewer --patches"
        )
