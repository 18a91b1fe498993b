"""The first end-to-end optimised codec with GDN: Balle, Laparra, Simoncelli, ICLR 2017.

    x --> g_a --> y --> entropy model --> y_hat --> g_s --> x_mid (--> enhancer) --> x_hat
                        one trained density a channel
                        (jointiq.entropy_models.factorized)

Three stages, each a convolution that scales down and GDN; g_s mirrors them. Training adds noise to y, for the rate and
for g_s alike (section 3). There is no side information. Images are [0, 1] at the API and [-1, 1] in the networks.

Odd sides are handled as in all models here (:mod:`jointiq.layers.padding`): the step of 4 of the first stage counts as
two halvings, so an image side that is no multiple of 4 is extended by up to three lines of its own edge, and an odd
feature side by one line of zeros (our choice; the paper does not say).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from compressai.models.utils import conv, deconv
from compressai.registry import register_model
from torch import Tensor, nn

from jointiq.enhancers import build_enhancer
from jointiq.layers.gdn import GDN
from jointiq.layers.padding import Size, crop, pad_to_even, pyramid
from jointiq.models.integer_codec import IntegerCodec
from jointiq.parts import Settings, at_least

FIRST_STEP = 4


class AnalysisTransform(nn.Module):
    """g_a: image (B, 3, H, W) in [-1, 1] -> y (B, N, ceil(H / 16), ceil(W / 16)).

    Convolutions of N filters, 9x9 of stride 4 and twice 5x5 of stride 2, each followed by GDN.
    """

    def __init__(self, N: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv(3, N, kernel_size=9, stride=FIRST_STEP), conv(N, N), conv(N, N)])
        self.gdns = nn.ModuleList(GDN(N, inplace=True) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % FIRST_STEP, 0, -height % FIRST_STEP), mode="replicate")
        for convolution, gdn in zip(self.convs, self.gdns, strict=True):
            x = gdn(convolution(pad_to_even(x)))
        return x


class SynthesisTransform(nn.Module):
    """g_s: y_hat (B, N, h, w) -> image (B, 3, *size), about [-1, 1], not clamped: g_a mirrored, with inverse GDN."""

    def __init__(self, N: int) -> None:
        super().__init__()
        # The first one's input is the caller's.
        self.igdns = nn.ModuleList(GDN(N, inverse=True, inplace=index > 0) for index in range(3))
        self.deconvs = nn.ModuleList([deconv(N, N), deconv(N, N), deconv(N, 3, kernel_size=9, stride=FIRST_STEP)])

    def forward(self, y_hat: Tensor, size: Size) -> Tensor:
        x, sizes = y_hat, pyramid(size, 4)
        for igdn, deconvolution, target in zip(self.igdns, self.deconvs, (sizes[3], sizes[2], sizes[0]), strict=True):
            x = crop(deconvolution(igdn(x)), target)
        return x


@dataclass(frozen=True)
class Balle2017Settings(Settings):
    """Settings of :class:`Balle2017`.

    Attributes:
        N: channels of the transforms and of y.
    """

    N: int = at_least(1)


@register_model("balle2017")
class Balle2017(IntegerCodec):
    """The codec of Balle 2017; in the paper without an enhancer."""

    SETTINGS = Balle2017Settings
    OWN_ENTROPY_MODEL = "factorized"

    settings: Balle2017Settings

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        N = self.settings.N
        self.g_a = AnalysisTransform(N)
        self.g_s = SynthesisTransform(N)
        self.entropy_model = self.build_entropy_model(N, N)
        self.enhancer = build_enhancer(self.config["enhancer"])
        self.to(memory_format=torch.channels_last)
