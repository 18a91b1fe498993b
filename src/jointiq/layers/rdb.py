"""Residual dense block and its group: the body of RDN (Zhang et al. 2018) and GRDN (Kim et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RDB(nn.Module):
    """Residual dense block: (B, ``kernels``, H, W) -> the same shape.

        x --+-> conv3x3, ReLU --+-> conv3x3, ReLU --+-> ... --> [x, all outputs] -> conv1x1 -> (+) ->
            |      (each sees x and every output so far)                                        |
            +-----------------------------------------------------------------------------------+

    ``convs`` densely connected 3x3 convolutions of ``kernels`` filters, then local feature fusion (1x1) and the local
    residual.
    """

    def __init__(self, kernels: int, convs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d((index + 1) * kernels, kernels, kernel_size=3, padding=1) for index in range(convs)
        )
        self.relu = nn.ReLU(inplace=True)
        self.fusion = nn.Conv2d((convs + 1) * kernels, kernels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for conv in self.convs:
            known = torch.cat([known, self.relu(conv(known))], dim=1)
        return x + self.fusion(known)


class GRDB(nn.Module):
    """Group of residual dense blocks: (B, ``kernels``, H, W) -> the same shape.

        x -> RDB -> RDB -> ... -> RDB
        |     |      |             |
        |     +------+-- concat ---+--> conv1x1 -> (+) ->
        +-------------------------------------------+

    ``rdbs`` blocks in cascade, their outputs joined and fused (1x1), and the group's residual.
    """

    def __init__(self, kernels: int, rdbs: int, convs: int) -> None:
        super().__init__()
        self.rdbs = nn.ModuleList(RDB(kernels, convs) for _ in range(rdbs))
        self.fusion = nn.Conv2d(rdbs * kernels, kernels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        block_output = x
        for rdb in self.rdbs:
            block_output = rdb(block_output)
            outputs.append(block_output)
        return x + self.fusion(torch.cat(outputs, dim=1))
