"""Convolutional block attention module (Woo et al. 2018): attention over channels, then over positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """One gate in (0, 1) per channel: (B, C, H, W) -> (B, C, 1, 1).

    The mean and the maximum over all places pass the same two-layer perceptron (C / ``reduction`` hidden units); the
    sum goes through a sigmoid. Any H, W >= 1.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        peak = x.amax(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.mlp(mean) + self.mlp(peak))


class SpatialAttention(nn.Module):
    """One gate in (0, 1) per place: (B, C, H, W) -> (B, 1, H, W).

    The mean and the maximum over the channels pass one ``kernel`` x ``kernel`` convolution (odd) and a sigmoid.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        statistics = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(statistics))


class CBAM(nn.Module):
    """Channel attention, then spatial attention: (B, C, H, W) -> the same shape.

    x --+--> channel gate --> (*) --+--> spatial gate --> (*) -->
        +----------------------^    +----------------------^
    """

    def __init__(self, channels: int, reduction: int = 8, spatial_kernel: int = 7) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, reduction)
        self.spatial = SpatialAttention(spatial_kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel(x)
        return x * self.spatial(x)
