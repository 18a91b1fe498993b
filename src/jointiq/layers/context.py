"""Local contexts c' and c'': 4x4 windows of h_s(z_hat) and of the known y_hat (Lee 2019 section 4.1).

For the position (r, c) both windows cover rows r-3 .. r and columns c-2 .. c+1; outside the grid they read zero. Of
y_hat only what is already decoded may be read: in the last row the two left entries.

                 c-2 c-1  c  c+1
            r-3   x   x   x   x
            r-2   x   x   x   x
            r-1   x   x   x   x
            r     x   x   .   .      x known, . = the position itself and the unknown, read as zero

A fully connected layer over such windows, applied at every position, is a 4x4 convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 4
ABOVE, LEFT, RIGHT = 3, 2, 1
KNOWN_IN_LAST_ROW = 2
KNOWN_ENTRIES = ABOVE * WINDOW + KNOWN_IN_LAST_ROW


def pad_window(x: Tensor) -> Tensor:
    """Zeros around (B, C, H, W) so that every position has a whole window: (B, C, H + 3, W + 3)."""
    return F.pad(x, (LEFT, RIGHT, ABOVE, 0))


class WindowLinear(nn.Conv2d):
    """Fully connected layer on the 4x4 window of each position: (B, in, H, W) -> (B, out, H, W).

    Args:
        causal: read only the known entries (c''); otherwise the whole window (c').
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, causal: bool) -> None:
        # c'' shares the bias of c': both feed the same sum.
        super().__init__(in_channels, out_channels, WINDOW, bias=not causal)
        self.causal = causal
        mask = torch.ones(WINDOW, WINDOW)
        if causal:
            mask[-1, KNOWN_IN_LAST_ROW:] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(pad_window(x), self.weight * self.mask, self.bias)
