"""GRDN, the grouped residual dense network (Kim et al. 2019), JointIQ-Net's quality-enhancement network Q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from jointiq.enhancers import EnhancerSettings, register_enhancer
from jointiq.errors import ConfigError
from jointiq.layers.cbam import CBAM
from jointiq.layers.padding import crop, pad_to_even
from jointiq.layers.rdb import GRDB
from jointiq.parts import at_least, checked


def _odd(key: str, value: Any) -> None:
    if type(value) is not int or value < 1 or value % 2 == 0:
        raise ConfigError(key, value, "odd whole numbers from 1")


@dataclass(frozen=True)
class GRDNSettings(EnhancerSettings):
    """Settings of :class:`GRDN`.

    Attributes:
        grdbs: groups of residual dense blocks.
        rdbs: residual dense blocks per group.
        convs: densely connected convolutions per block.
        kernels: filters of each of those convolutions, and channels of every feature map.
        reduction: channels per hidden unit in CBAM's channel attention.
        spatial_kernel: side of the kernel of CBAM's spatial attention, odd.
    """

    grdbs: int = at_least(1)
    rdbs: int = at_least(1)
    convs: int = at_least(1)
    kernels: int = at_least(1)
    reduction: int = at_least(1, default=8)
    spatial_kernel: int = checked(_odd, default=7)


@register_enhancer("grdn", GRDNSettings)
class GRDN(nn.Module):
    """GRDN: image (B, 3, H, W), about [-1, 1] -> enhanced image of the same shape, not clamped.

        x -> conv 3x3 -> conv 4x4 / down 2 -> GRDB -> ... -> GRDB -> deconv 4x4 / up 2 -> CBAM -> conv 3x3 -> (+) -> x'
        |                                     `---- ``grdbs`` ----'                                            |
        +------------------------------------------------------------------------------------------------------+

    JointIQ-Net section 5 gives (grdbs, rdbs, convs, kernels) = (4, 4, 8, 64) for the final models and (4, 3, 3, 32) for
    the light version. An odd side gets one line at the bottom or right before the down-scaling layer and loses it
    after the up-scaling one (:mod:`jointiq.layers.padding`), so any H, W >= 1 will do. CBAM pools over the whole image:
    an image enhanced in tiles differs from the same image enhanced whole.

    Our choices, where the texts are silent: the 4x4 kernels of the scaling layers (each output of the up-scaling sees
    the same number of inputs, so no chequerboard is built in), and CBAM's reduction of 8 (its authors' 16 leaves two
    hidden units to the light version, which may both start as dead ReLUs). PyTorch's default initialisation is kept,
    also in the last layer: zeros there would pass no gradient to anything before it.
    """

    def __init__(self, settings: GRDNSettings) -> None:
        super().__init__()
        kernels = settings.kernels
        self.head = nn.Conv2d(3, kernels, kernel_size=3, padding=1)
        self.down = nn.Conv2d(kernels, kernels, kernel_size=4, stride=2, padding=1)
        self.grdbs = nn.Sequential(*(GRDB(kernels, settings.rdbs, settings.convs) for _ in range(settings.grdbs)))
        self.up = nn.ConvTranspose2d(kernels, kernels, kernel_size=4, stride=2, padding=1)
        self.attention = CBAM(kernels, settings.reduction, settings.spatial_kernel)
        self.tail = nn.Conv2d(kernels, 3, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        features = self.down(pad_to_even(self.head(x)))
        features = self.grdbs(features)
        features = crop(self.up(features), (height, width))
        return x + self.tail(self.attention(features))
