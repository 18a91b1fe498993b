"""RDN, the residual dense network (Zhang et al. 2018), one of the enhancers of JointIQ-Net's Figure 4."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jointiq.enhancers import EnhancerSettings, register_enhancer
from jointiq.layers.rdb import RDB
from jointiq.parts import at_least


@dataclass(frozen=True)
class RDNSettings(EnhancerSettings):
    """Settings of :class:`RDN`.

    Attributes:
        blocks: residual dense blocks.
        convs: densely connected convolutions per block.
        kernels: filters of each of those convolutions, and channels of every feature map.
    """

    blocks: int = at_least(1)
    convs: int = at_least(1)
    kernels: int = at_least(1)


@register_enhancer("rdn", RDNSettings)
class RDN(nn.Module):
    """RDN: image (B, 3, H, W), about [-1, 1] -> enhanced image of the same shape, not clamped.

        x -> conv 3x3 -+-> conv 3x3 -> RDB -> RDB -> ... -> RDB                            (``blocks`` of them)
        |              |                |      |             |
        |              |                +------+-- concat ---+--> conv 1x1 -> conv 3x3 -> (+) -> conv 3x3 -> (+) -> x'
        |              +-------------------------------------------------------------------+                  |
        +-----------------------------------------------------------------------------------------------------+

    Everything works at full resolution. RDN's up-sampling layers are left out, as input and output have the same size,
    and x is added to the output, which is the authors' form of RDN for image restoration. The growth rate of the dense
    blocks is the number of channels of every feature map (our choice, as in GRDN).
    """

    def __init__(self, settings: RDNSettings) -> None:
        super().__init__()
        blocks, convs, kernels = settings.blocks, settings.convs, settings.kernels
        self.head = nn.Conv2d(3, kernels, kernel_size=3, padding=1)
        self.shallow = nn.Conv2d(kernels, kernels, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(RDB(kernels, convs) for _ in range(blocks))
        self.fusion = nn.Sequential(
            nn.Conv2d(blocks * kernels, kernels, kernel_size=1),
            nn.Conv2d(kernels, kernels, kernel_size=3, padding=1),
        )
        self.tail = nn.Conv2d(kernels, 3, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x)
        features = self.shallow(first)
        outputs = []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        return x + self.tail(first + self.fusion(torch.cat(outputs, dim=1)))
