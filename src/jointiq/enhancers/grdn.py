"""GRDN, the grouped residual dense network (Kim et al. 2019), JointIQ-Net's quality-enhancement network Q."""

from __future__ import annotations

from torch import Tensor, nn

from jointiq.enhancers import register_enhancer
from jointiq.errors import ConfigError
from jointiq.layers.cbam import CBAM
from jointiq.layers.padding import crop, pad_to_even
from jointiq.layers.rdb import GRDB


@register_enhancer("grdn")
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

    Args:
        grdbs: groups of residual dense blocks.
        rdbs: residual dense blocks per group.
        convs: densely connected convolutions per block.
        kernels: filters of each of those convolutions, and channels of every feature map.
        reduction: channels per hidden unit in CBAM's channel attention.
        spatial_kernel: side of the kernel of CBAM's spatial attention, odd.

    Raises:
        ConfigError: a count below 1, or an even ``spatial_kernel``.
    """

    def __init__(
        self, grdbs: int, rdbs: int, convs: int, kernels: int, reduction: int = 8, spatial_kernel: int = 7
    ) -> None:
        super().__init__()
        counts = {"grdbs": grdbs, "rdbs": rdbs, "convs": convs, "kernels": kernels, "reduction": reduction}
        for key, count in counts.items():
            if type(count) is not int or count < 1:
                raise ConfigError(f"enhancer.{key}", count, "whole numbers from 1")
        if type(spatial_kernel) is not int or spatial_kernel < 1 or spatial_kernel % 2 == 0:
            raise ConfigError("enhancer.spatial_kernel", spatial_kernel, "odd whole numbers from 1")

        self.head = nn.Conv2d(3, kernels, kernel_size=3, padding=1)
        self.down = nn.Conv2d(kernels, kernels, kernel_size=4, stride=2, padding=1)
        self.grdbs = nn.Sequential(*(GRDB(kernels, rdbs, convs) for _ in range(grdbs)))
        self.up = nn.ConvTranspose2d(kernels, kernels, kernel_size=4, stride=2, padding=1)
        self.attention = CBAM(kernels, reduction, spatial_kernel)
        self.tail = nn.Conv2d(kernels, 3, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        features = self.down(pad_to_even(self.head(x)))
        features = self.grdbs(features)
        features = crop(self.up(features), (height, width))
        return x + self.tail(self.attention(features))
