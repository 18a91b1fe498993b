"""The first end-to-end optimised codec with GDN: Balle, Laparra, Simoncelli, ICLR 2017.

    x --> g_a --> y --> round --> y_hat --> g_s --> x_mid (--> enhancer) --> x_hat
                                    |
                           p(y_hat): one trained density a channel

Three stages, each a convolution that scales down and GDN; g_s mirrors them. Training adds noise to y, for the rate and
for g_s alike (section 3). There is no side information. Images are [0, 1] at the API and [-1, 1] in the networks.

Odd sides are handled as in all models here (:mod:`jointiq.layers.padding`): the step of 4 of the first stage counts as
two halvings, so an image side that is no multiple of 4 is extended by up to three lines of its own edge, and an odd
feature side by one line of zeros (our choice; the paper does not say).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from compressai.models.utils import conv, deconv
from compressai.registry import register_model
from torch import Tensor, nn

from jointiq.bitstream.scan import PARALLEL
from jointiq.enhancers import build_enhancer
from jointiq.entropy_models.factorized import ExactFactorized, FactorizedDensity
from jointiq.errors import ConfigError
from jointiq.layers.gdn import GDN
from jointiq.layers.padding import Size, crop, pad_to_even, pyramid
from jointiq.layers.quantize import add_uniform_noise, round_ste
from jointiq.models.base import Cut, Latents, output
from jointiq.models.exact_codec import ExactCodec

FIRST_STEP = 4


class AnalysisTransform(nn.Module):
    """g_a: image (B, 3, H, W) in [-1, 1] -> y (B, N, ceil(H / 16), ceil(W / 16)).

    Convolutions of N filters, 9x9 of stride 4 and twice 5x5 of stride 2, each followed by GDN.
    """

    def __init__(self, N: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv(3, N, kernel_size=9, stride=FIRST_STEP), conv(N, N), conv(N, N)])
        self.gdns = nn.ModuleList([GDN(N) for _ in range(3)])

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
        self.igdns = nn.ModuleList([GDN(N, inverse=True) for _ in range(3)])
        self.deconvs = nn.ModuleList([deconv(N, N), deconv(N, N), deconv(N, 3, kernel_size=9, stride=FIRST_STEP)])

    def forward(self, y_hat: Tensor, size: Size) -> Tensor:
        sizes = pyramid(size, 4)
        # A copy, because GDN overwrites its input where no gradients are kept.
        x = y_hat.clone()
        for igdn, deconvolution, target in zip(self.igdns, self.deconvs, (sizes[3], sizes[2], sizes[0]), strict=True):
            x = crop(deconvolution(igdn(x)), target)
        return x


@register_model("balle2017")
class Balle2017(ExactCodec):
    """The codec of Balle 2017, coded exactly.

    Args:
        N: channels of the transforms and of y.
        enhancer: config of Q (see :func:`jointiq.enhancers.build_enhancer`); None, as in the paper, leaves it out.

    Raises:
        ConfigError: a value that is not allowed.
    """

    SIDE = ()
    FLOAT_PARTS = ("g_a.", "g_s.", "prior.", "enhancer.")

    def __init__(self, N: int, enhancer: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.forget()
        if not isinstance(N, int) or N < 1:
            raise ConfigError("model.N", N, "a whole number from 1 up")
        self.config = {"name": "balle2017", "N": N, "enhancer": None if enhancer is None else dict(enhancer)}
        self.g_a = AnalysisTransform(N)
        self.g_s = SynthesisTransform(N)
        self.prior = FactorizedDensity(N)
        self.enhancer = build_enhancer(enhancer)
        # The layout in which convolutions run a third faster on CPUs, and fastest on tensor cores.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, cut: Cut | None = None) -> dict[str, Any]:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        y = self.analyse(x)["y"]
        y_tilde = add_uniform_noise(y) if self.training else round_ste(y)
        x_hat, x_mid = self.reconstruct(y_tilde, (x.shape[-2], x.shape[-1]), cut)
        return output(x_hat, x_mid, {"y": self.prior(y_tilde)})

    def analyse(self, x: Tensor) -> Latents:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        return {"y": self.g_a(2 * x - 1).float()}

    def reconstruct(self, y_hat: Tensor, size: Size, cut: Cut | None = None) -> tuple[Tensor, Tensor]:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        return self.enhanced(self.g_s(y_hat, size), cut)

    def log_likelihoods(self, latents: Latents) -> Latents:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        return {"y": self.prior(latents["y"])}

    @property
    def scan_code(self) -> int:
        """As in :class:`jointiq.models.base.LearnedCodec`: no position waits for another."""
        return PARALLEL

    def latent_shape(self, size: Size) -> Size:
        """As in :class:`jointiq.models.base.LearnedCodec`: that of y."""
        return pyramid(size, 4)[4]

    def quantise_entropy_model(self) -> ExactFactorized:
        """As in :class:`jointiq.models.exact_codec.ExactCodec`."""
        return ExactFactorized.quantise(self.prior)

    def restore_exact(self, tensors: dict[str, Tensor]) -> None:
        """As in :class:`jointiq.models.base.LearnedCodec`; the density comes as floats, for no table gives it back."""
        self.use_exact(ExactFactorized(tensors))
