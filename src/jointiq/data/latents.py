"""The data of ``stage=entropy``: latents y of the training images, computed once by the frozen g_a.

A step then costs the entropy model alone; runs with the same g_a share the latents.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jointiq.data import LATENT
from jointiq.data.datamodule import ImageData
from jointiq.data.loader import Loader
from jointiq.data.patches import StepSampler
from jointiq.files import atomic_path
from jointiq.models.base import LearnedCodec


class LatentData(lightning.LightningDataModule):
    """Batches (B, M, crop / 16, crop / 16) of unrounded y to train on; the images themselves to validate on.

    When the training begins, with the weights of g_a on their device, every training image is analysed whole, in
    ``copies`` versions with random zoom and flips. All latents stay in memory, M / 64 bytes a pixel.

    Args:
        images: the images, and the settings ``crop`` (a multiple of 16), ``min_zoom``, ``flips`` and ``seed``.
        net: the model whose y is computed; its g_a must not change any more.
        copies: versions of each image; they do not depend on the seed.
        cache: folder that keeps latents for other runs with the same g_a; None keeps nothing.
    """

    def __init__(self, images: ImageData, net: LearnedCodec, copies: int, cache: str | Path | None = None) -> None:
        super().__init__()
        self.images = images
        self.net = net
        self.copies = copies
        self.cache = None if cache is None else Path(cache)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return the batches that are still to be trained; computes the latents."""
        assert self.trainer is not None
        trainer = self.trainer
        sampler = StepSampler(
            self.images.batch_size, trainer.max_steps, trainer.global_step, trainer.global_rank, trainer.world_size
        )
        side, seed = self.images.patches["crop"] // LATENT, self.images.patches["seed"]
        return DataLoader(RandomCrops(self.latents(), side, seed), batch_sampler=sampler)

    def val_dataloader(self) -> Loader[Tensor]:
        """Return every validation image, one a batch, (1, 3, H, W) uint8."""
        return self.images.val_dataloader()

    def latents(self) -> list[list[Tensor]]:
        """Return y of every version of every training image, float32 (M, h, w) on the CPU; from the cache if there."""
        if self.cache is None:
            return self._compute()
        file = self.cache / f"{self._digest()}.pt"
        try:
            kept: list[list[Tensor]] = torch.load(file, weights_only=True)
            return kept
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            latents = self._compute()
        with atomic_path(file) as temporary:
            torch.save(latents, temporary)
        return latents

    def _digest(self) -> str:
        """Return a hash of all that the latents depend on: g_a, images, versions, device."""
        settings = [self.images.patches[key] for key in ("crop", "min_zoom", "flips")]
        digest = hashlib.sha256(repr((settings, self.copies, self.net.device.type)).encode())
        for name, weight in self.net.get_submodule("g_a").state_dict().items():
            digest.update(name.encode() + weight.detach().cpu().float().numpy().tobytes())
        digest.update(self.images.train_identity())
        return digest.hexdigest()[:32]

    @torch.no_grad()
    def _compute(self) -> list[list[Tensor]]:
        crop, min_zoom, flips = (self.images.patches[key] for key in ("crop", "min_zoom", "flips"))
        latents: list[list[Tensor]] = []
        numbers = range(self.images.train_count)
        hidden = not self.trainer.is_global_zero if self.trainer else False
        console = Console(stderr=True)
        for number in track(numbers, "latents of the images", console=console, transient=True, disable=hidden):
            image = self.images.train_image(number)
            latents.append([])
            for version in range(self.copies):
                rng = np.random.default_rng((number, version))
                picture = random_version(image, crop, min_zoom, flips, rng)
                x = torch.from_numpy(picture).to(self.net.device).permute(2, 0, 1)[None].float() / 255
                latents[-1].append(self.net.analyse(x)["y"][0].float().cpu())
        return latents


class RandomCrops(Dataset[Tensor]):
    """Crop number i: an image, one of its versions and a place, all drawn at random; (M, side, side).

    It depends on the seed and on i alone, like a patch of :class:`jointiq.data.patches.RandomPatches`.

    Args:
        latents: the versions (M, h, w) of each image, no side smaller than ``side``; all images are equally likely.
        side: of a crop, in latent positions.
        seed: of all draws.
    """

    def __init__(self, latents: Sequence[Sequence[Tensor]], side: int, seed: int) -> None:
        self.latents = latents
        self.side = side
        self.seed = seed

    def __getitem__(self, number: int) -> Tensor:
        rng = np.random.default_rng((self.seed, number))
        versions = self.latents[int(rng.integers(len(self.latents)))]
        y = versions[int(rng.integers(len(versions)))]
        top, left = (int(rng.integers(length - self.side + 1)) for length in y.shape[-2:])
        return y[:, top : top + self.side, left : left + self.side]


def random_version(
    image: NDArray[np.uint8], smallest: int, min_zoom: float, flips: bool, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return ``image`` (H, W, 3) scaled down by a zoom uniform in [min_zoom, 1], mirrored at random if ``flips``.

    No side becomes smaller than ``smallest``: images that are too small for a zoom are zoomed less.
    """
    height, width = image.shape[:2]
    zoom = max(rng.uniform(min_zoom, 1.0), smallest / min(height, width))
    mirror, upside_down = rng.random(2) < 0.5
    if zoom < 1:
        size = (max(round(width * zoom), smallest), max(round(height * zoom), smallest))
        image = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    if flips and mirror:
        image = image[:, ::-1]
    if flips and upside_down:
        image = image[::-1]
    return np.ascontiguousarray(image)
