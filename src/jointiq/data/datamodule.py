"""The data of a training run: random patches to train on, whole images to validate on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jointiq.data.images import image_size
from jointiq.data.loader import Loader, exit_with_training
from jointiq.data.patches import Patches, RandomPatches, StepSampler, WholeImages
from jointiq.runtime import usable_cores

_MAX_WORKERS = 8


class ImageData(lightning.LightningDataModule):
    """Batches (B, 3, crop, crop) of training patches and (1, 3, H, W) of validation images, as uint8.

    An epoch has ``trainer.max_steps`` batches and continues after ``trainer.global_step``. A batch is split over the
    processes of a distributed run; each of them validates every image, so that means are exact.

    Args:
        train, val: image files.
        batch_size: patches in a step over all processes.
        num_workers: processes that prepare patches; None: up to 8 with a GPU, else 0.
        crop, min_zoom, flips, seed, preload_mb: see :class:`jointiq.data.patches.RandomPatches`.
    """

    def __init__(
        self,
        train: Sequence[Path],
        val: Sequence[Path],
        batch_size: int,
        crop: int,
        min_zoom: float = 1.0,
        flips: bool = True,
        seed: int = 0,
        num_workers: int | None = None,
        preload_mb: float = 1024,
    ) -> None:
        super().__init__()
        self.train_paths, self.val_paths = list(train), list(val)
        self.batch_size = batch_size
        self.patches: dict[str, Any] = {
            "crop": crop, "min_zoom": min_zoom, "flips": flips, "seed": seed, "preload_mb": preload_mb,
        }  # fmt: skip
        self.on_gpu = torch.cuda.is_available()
        default_workers = min(_MAX_WORKERS, usable_cores()) if self.on_gpu else 0
        self.num_workers = default_workers if num_workers is None else num_workers
        self._train: Patches | None = None

    def setup(self, stage: str) -> None:
        """Check every image's size, and read the images where they fit into memory; done once.

        Raises:
            DataError: an image is too small or cannot be read.
        """
        if self._train is None:
            for path in self.val_paths:
                image_size(path)
            self._train = self.open_patches()

    def open_patches(self) -> Patches:
        """Open the data set of the training patches."""
        return RandomPatches(self.train_paths, **self.patches)

    def train_dataloader(self) -> Loader[Tensor]:
        """Return the batches that are still to be trained."""
        trainer = self.trainer
        assert trainer is not None
        return self.train_batches(trainer.max_steps, trainer.global_step, trainer.global_rank, trainer.world_size)

    def train_batches(self, steps: int, first_step: int = 0, rank: int = 0, world_size: int = 1) -> Loader[Tensor]:
        """Return the share of process ``rank`` of the batches of steps ``first_step`` to ``steps`` - 1."""
        assert self._train is not None
        sampler = StepSampler(self.batch_size, steps, first_step, rank, world_size)
        return Loader(self._train, batch_sampler=sampler, **self._loading())

    def val_dataloader(self) -> Loader[Tensor]:
        """Return every validation image, one a batch."""
        return Loader(WholeImages(self.val_paths), batch_size=1, **self._loading())

    @property
    def train_count(self) -> int:
        """Number of training images."""
        assert self._train is not None
        return self._train.count

    @property
    def reads_files(self) -> bool:
        """Whether each training patch reads and decodes a whole file."""
        assert self._train is not None
        return self._train.reads_files

    def first_patches(self, pixels: int) -> Tensor:
        """Return the first training patches, 8 or more, of ``pixels`` in all: (B, 3, crop, crop) uint8."""
        assert self._train is not None
        count = max(8, pixels // self._train.crop**2)
        return torch.stack([self._train[number] for number in range(count)])

    def train_image(self, index: int) -> NDArray[np.uint8]:
        """Return training image ``index``, whole, (height, width, 3)."""
        assert self._train is not None
        return self._train.image(index)

    def train_identity(self) -> bytes:
        """Return what identifies the training images, in their order: the SHA-256 of each file, joined."""
        return b"".join(hashlib.sha256(Path(path).read_bytes()).digest() for path in self.train_paths)

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "pin_memory": self.on_gpu,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": exit_with_training,
        }
