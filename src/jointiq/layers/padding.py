"""The one-line padding rule (JointIQ-Net section 8.1).

A down-scaling layer that meets an odd side gets one more line at the bottom or right; the layer that undoes it removes
the line again. Encoder and decoder derive all of this from the true image size, the only size that is sent.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def pyramid(size: Size, levels: int) -> list[Size]:
    """Return the sizes (height, width) before and after each halving, largest first: ``levels + 1`` entries."""
    sizes = [size]
    for _ in range(levels):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def pad_to_even(x: Tensor, mode: str = "constant") -> Tensor:
    """Add one line at the bottom and/or right of (B, C, H, W) where that side is odd (``constant`` adds zeros)."""
    height, width = x.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return x
    return F.pad(x, (0, width % 2, 0, height % 2), mode=mode)


def crop(x: Tensor, size: Size) -> Tensor:
    """Keep the top-left ``size`` (height, width) of (B, C, H, W)."""
    return x[..., : size[0], : size[1]]
