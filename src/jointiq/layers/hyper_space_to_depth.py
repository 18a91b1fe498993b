"""Hyper transforms that change resolution without loss: space-to-depth down, depth-to-space up (Hu 2020, section 3).

    y_hat --3x3--> space-to-depth 2 --1x1, ReLU, 1x1, ReLU, 1x1--> h
    c <--3x3-- depth-to-space 2 <--ReLU, 1x1, ReLU, 1x1, 1x1-- h_hat

Space-to-depth needs even sides: an odd one gets a line of zeros, which the way back removes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.layers.integer_layers import IntegerLinear, integer_conv, to_fixed
from jointiq.layers.padding import Size, crop, pad_to_even

#: Entries of a 2x2 block, which space-to-depth turns into channels.
BLOCK = 4


class SpaceToDepthAnalysis(nn.Module):
    """Features (B, inputs, h, w) -> latent (B, outputs, ceil(h / 2), ceil(w / 2)).

    Args:
        inputs, outputs: channels.
        wide: channels of the 3x3 convolution, before space-to-depth makes four times as many of them.
        width: channels between the 1x1 convolutions.
    """

    def __init__(self, inputs: int, wide: int, width: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, wide, 3, padding=1)
        self.pointwise = nn.Sequential(
            nn.Conv2d(BLOCK * wide, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(),
            nn.Conv2d(width, outputs, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(F.pixel_unshuffle(pad_to_even(self.conv(x)), 2))


class DepthToSpaceSynthesis(nn.Module):
    """Rounded latent (B, inputs, ceil(h / 2), ceil(w / 2)) -> features (B, outputs, h, w), with ``size`` = (h, w).

    As in the authors' code, no activation follows the first of the 1x1 convolutions.

    Args:
        inputs, outputs: channels.
        width: channels between the 1x1 convolutions, a multiple of four.
    """

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.pointwise = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (inputs, width, width))
        self.conv = nn.Conv2d(width // BLOCK, outputs, 3, padding=1)

    def forward(self, latent: Tensor, size: Size) -> Tensor:
        first, *rest = self.pointwise
        features = first(latent)
        for layer in rest:
            features = F.relu(layer(features))
        return self.conv(crop(F.pixel_shuffle(features, 2), size))


class IntegerDepthToSpaceSynthesis:
    """Integer network of :class:`DepthToSpaceSynthesis`: (inputs, ...) integers -> (outputs, *size), fixed point.

    Args:
        layers: ``pointwise0`` to ``pointwise2`` and ``conv``.
    """

    def __init__(self, layers: Mapping[str, IntegerLinear]) -> None:
        self.layers = dict(layers)

    @classmethod
    def quantise(cls, synthesis: DepthToSpaceSynthesis) -> IntegerDepthToSpaceSynthesis:
        """Quantise the weights of a float synthesis."""
        layers = {f"pointwise{i}": IntegerLinear.of_layer(layer) for i, layer in enumerate(synthesis.pointwise)}
        return cls(layers | {"conv": IntegerLinear.of_layer(synthesis.conv)})

    def __call__(self, latent: Tensor, size: Size) -> Tensor:
        features = self.layers["pointwise0"](to_fixed(latent.permute(1, 2, 0)))
        for name in ("pointwise1", "pointwise2"):
            features = self.layers[name](features).clamp_(min=0)
        return integer_conv(self.layers["conv"], crop(F.pixel_shuffle(features.permute(2, 0, 1), 2), size), 3)
