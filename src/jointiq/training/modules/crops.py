"""Random crops of training patches: Q sees a small square of each patch, I the whole (paper, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jointiq.data import LATENT


@dataclass(frozen=True)
class Crops:
    """One square of each image of a batch, on the grid of y.

    Attributes:
        size: height and width of the whole images, in pixels.
        corners: top and left of each square, in positions of y.
        side: of the squares, in positions of y.
    """

    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    side: int

    @classmethod
    def random(cls, images: int, size: tuple[int, int], side: int) -> Crops:
        """Return squares at uniformly random places, drawn from torch's CPU generator.

        Args:
            images: number of images.
            size: height and width of the images in pixels.
            side: of the squares in pixels, a multiple of 16, not larger than the images.
        """
        rows, columns = (torch.randint((length - side) // LATENT + 1, (images,)).tolist() for length in size)
        return cls(size, tuple(zip(rows, columns, strict=True)), side // LATENT)

    def pixels(self, x: Tensor) -> Tensor:
        """Return the squares of images (B, C, H, W)."""
        return self._cut(x, LATENT)

    def latents(self, y: Tensor) -> Tensor:
        """Return the same squares of a tensor on the grid of y, (B, C, h, w)."""
        return self._cut(y, 1)

    def _cut(self, x: Tensor, unit: int) -> Tensor:
        side = self.side * unit
        squares = [
            image[:, top * unit : top * unit + side, left * unit : left * unit + side]
            for image, (top, left) in zip(x, self.corners, strict=True)
        ]
        return torch.stack(squares)
