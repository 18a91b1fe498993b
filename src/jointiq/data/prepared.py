"""Training patches cut in advance by :mod:`jointiq.data.prepare`, and the data of a run that trains on them.

A folder of them holds

* ``patches.npy``: all patches in one array of bytes, (patches, side, side, 3), opened as a memory map;
* ``patches.csv``: for each patch its number, the image it is from, the square it shows there, and the SHA-256 of its
  pixels;
* ``manifest.json``: the settings, and the SHA-256 of the pixels of every image, by the names that ``patches.csv`` uses.

One array rather than shards: a step reads a few patches at random places, and each is then one contiguous read at a
known offset, without an index, without decoding, and without reading what surrounds it. All worker processes and all
processes of a distributed run on a machine share the page cache; 51,140 patches of 256x256 are 10 GB, which most
training machines keep in memory. Shards are for sequential reading over a network.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jointiq.command_line import program
from jointiq.data import folder
from jointiq.data.datamodule import ImageData
from jointiq.data.patches import Patches
from jointiq.errors import ConfigError, DataError

PATCHES, LIST, MANIFEST = "patches.npy", "patches.csv", "manifest.json"
_MAKER = program("prepare")


def images(data: Mapping[str, Any], split: str) -> list[Path]:
    """Return the images of ``data.<split>_dir``, to validate or test on; training patches are not image files."""
    return folder.images(data, split)


def build(data: Mapping[str, Any], seed: int, **settings: Any) -> ImageData:
    """Return the data module that trains on the patches in ``data.train_dir``.

    Raises:
        ConfigError: ``train_dir`` is not one folder.
    """
    if not data["train_dir"] or folder.is_list(data["train_dir"]):
        made = f"one folder, the --output of {_MAKER}: data=prepared data.train_dir=DIR"
        raise ConfigError("data.train_dir", data["train_dir"], made)
    return PreparedData(Path(data["train_dir"]), images(data, "val"), seed=seed, **settings)


class PreparedPatches(Patches):
    """The prepared patches themselves, or random squares of them where ``crop`` is smaller.

    Args:
        folder: output of :mod:`jointiq.data.prepare`.
        crop, min_zoom, flips, seed: see :class:`jointiq.data.patches.Patches`.

    Raises:
        DataError: the folder holds no finished set of patches, or patches smaller than the crop.
    """

    def __init__(self, folder: Path, crop: int, min_zoom: float, flips: bool, seed: int) -> None:
        super().__init__(crop, min_zoom, flips, seed)
        self._images = open_patches(folder)
        self.count, side = self._images.shape[:2]
        if side < crop:
            raise DataError(
                f"{folder} holds patches of {side}x{side} pixels, smaller than data.crop={crop}; allowed: a smaller "
                f"data.crop, or patches made with --side {crop}"
            )

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.asarray(self._images[index])


class PreparedData(ImageData):
    """The data module whose training patches are those of a prepared folder.

    Args:
        train: the folder.
        val: image files.
        settings: the other arguments of ``ImageData``.
    """

    def __init__(self, train: Path, val: Sequence[Path], **settings: Any) -> None:
        super().__init__([], val, **settings)
        self.train_folder = train

    def open_patches(self) -> Patches:
        return PreparedPatches(
            self.train_folder, **{key: value for key, value in self.patches.items() if key != "preload_mb"}
        )

    def train_identity(self) -> bytes:
        """Return what identifies the prepared patches, in their order: the SHA-256 of the pixels of each, joined.

        Raises:
            DataError: the folder's ``patches.csv`` is missing or damaged.
        """
        path = self.train_folder / LIST
        try:
            return b"".join(bytes.fromhex(row.sha256) for row in read_rows(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read: {error!r}; allowed: the list as {_MAKER} wrote it") from error


@dataclass(frozen=True)
class PatchRow:
    """One line of ``patches.csv``.

    Attributes:
        number: index of the patch in ``patches.npy``.
        image: name of its image in ``manifest.json``.
        top, left, side: the square of the image that it shows, in pixels.
        sha256: hash of its pixels, :func:`jointiq.data.images.pixel_hash`.
    """

    number: int
    image: str
    top: int
    left: int
    side: int
    sha256: str


def open_patches(folder: Path) -> NDArray[np.uint8]:
    """Open the array of a finished folder, (patches, side, side, 3) uint8, as a memory map.

    Raises:
        DataError: there is none, or its file is damaged.
    """
    # The manifest is written last.
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: no prepared patches; allowed: the --output of {_MAKER}")
    try:
        patches: NDArray[np.uint8] = np.load(folder / PATCHES, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / PATCHES} cannot be read: {error}") from error
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[3] != 3:
        raise DataError(f"{folder / PATCHES} is {patches.dtype} {patches.shape}; allowed: uint8 (n, side, side, 3)")
    return patches


def read_rows(path: Path) -> list[PatchRow]:
    """Read the whole lines of a ``patches.csv``, which may end anywhere."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [
        PatchRow(int(row["number"]), row["image"], int(row["top"]), int(row["left"]), int(row["side"]), row["sha256"])
        for row in csv.DictReader(whole)
    ]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json``; empty where it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
