"""PyTorch data sets of random training patches and of whole images, uint8.

A patch depends on the seed and its own number alone, and step s of a run takes the patches s * batch to
(s + 1) * batch - 1. So the data of a run does not depend on the number of workers or devices, a resumed run continues
at the right patch, and no patch is drawn twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from jointiq.data.images import image_size, read_image
from jointiq.errors import DataError

_MANY_FILES = 2000


class Patches(Dataset[Tensor], ABC):
    """Random patches; number i is (3, crop, crop) uint8, its image, zoom, place and flips drawn at random.

    Subclasses provide the images.

    Args:
        crop: side of a patch in pixels.
        min_zoom: a patch shows an area of crop / zoom pixels a side, zoom uniform in [min_zoom, 1], scaled down.
        flips: mirror half of the patches, left-right and top-bottom independently.
        seed: of all draws.
    """

    #: Number of images; all are equally likely.
    count: int
    #: Whether each patch reads and decodes a whole file.
    reads_files = False

    def __init__(self, crop: int, min_zoom: float, flips: bool, seed: int) -> None:
        self.crop = crop
        self.min_zoom = min_zoom
        self.flips = flips
        self.seed = seed

    def __getitem__(self, number: int) -> Tensor:
        rng = np.random.default_rng((self.seed, number))
        image = self.image(int(rng.integers(self.count)))
        patch = cut_square(image, *draw_square(image.shape, self.crop, self.min_zoom, rng), self.crop)
        mirror, upside_down = rng.random(2) < 0.5
        if self.flips and mirror:
            patch = patch[:, ::-1]
        if self.flips and upside_down:
            patch = patch[::-1]
        return _to_tensor(patch)

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image ``index``, whole, (height, width, 3) uint8."""


class RandomPatches(Patches):
    """Patches of image files.

    Args:
        paths: the files.
        crop, min_zoom, flips, seed: see :class:`Patches`.
        preload_mb: keep the decoded images in memory if they take at most this many MB.

    Raises:
        DataError: an image is smaller than the crop, or cannot be read.
    """

    def __init__(
        self, paths: Sequence[Path], crop: int, min_zoom: float, flips: bool, seed: int, preload_mb: float
    ) -> None:
        super().__init__(crop, min_zoom, flips, seed)
        self.paths = list(paths)
        self.count = len(self.paths)
        sizes = [image_size(path) for path in _tracked(self.paths, "looking at images", len(self.paths) > _MANY_FILES)]
        for path, (height, width) in zip(self.paths, sizes, strict=True):
            if min(height, width) < crop:
                raise DataError(
                    f"{path} is {width}x{height} pixels, smaller than data.crop={crop}; allowed: images with both "
                    "sides >= data.crop, or a smaller data.crop"
                )
        megabytes = sum(3 * height * width for height, width in sizes) / 1e6
        self._images: list[NDArray[np.uint8]] | None = None
        if megabytes <= preload_mb:
            self._images = [read_image(path) for path in _tracked(self.paths, "reading images", megabytes > 50)]
        self.reads_files = self._images is None

    def image(self, index: int) -> NDArray[np.uint8]:
        return read_image(self.paths[index]) if self._images is None else self._images[index]


class WholeImages(Dataset[Tensor]):
    """Whole images; number i is (3, height, width) uint8."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return _to_tensor(read_image(self.paths[index]))


class StepSampler(Sampler[list[int]]):
    """Batches of patch numbers, one a step: this process's share of the batch.

    Args:
        batch_size: patches in a step over all processes; a multiple of ``world_size``.
        steps: steps of the whole run, and the length of this sampler, also where a run is resumed.
        first_step: number of steps that are done.
        rank, world_size: this process, and how many there are.
    """

    def __init__(self, batch_size: int, steps: int, first_step: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size = batch_size
        self.steps = steps
        self.first_step = first_step
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world_size
        for step in range(self.first_step, self.steps):
            first = step * self.batch_size + self.rank * share
            yield list(range(first, first + share))


def draw_square(shape: tuple[int, ...], crop: int, min_zoom: float, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a random square of an image of ``shape`` (height, width, ...), ``crop`` or larger: top, left, side.

    The side is crop / zoom, zoom uniform in [min_zoom, 1], or less where the image is too small for that.
    """
    height, width = shape[:2]
    side = min(round(crop / rng.uniform(min_zoom, 1.0)), height, width)
    return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side


def cut_square(image: NDArray[np.uint8], top: int, left: int, side: int, crop: int) -> NDArray[np.uint8]:
    """Cut a square of an image, (crop, crop, 3): its own pixels if ``side`` is ``crop``, otherwise scaled down."""
    square = image[top : top + side, left : left + side]
    if side == crop:
        return square
    return np.asarray(Image.fromarray(square).resize((crop, crop), Image.Resampling.BICUBIC))


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _tracked(paths: list[Path], text: str, is_long: bool) -> Iterator[Path]:
    yield from track(paths, description=text, console=Console(stderr=True), transient=True, disable=not is_long)
