"""Information aggregation (Hu 2020, section 3): the picture from y_hat and from the side information around it.

    y_hat --g_s without its last layer--> N channels at 1/2 -----------------+
                                                                             +--residual block, up, 3x3, 1x1--> image
    [c of y, depth-to-space(c of h2)] at 1/16 --three transposed convs-------+

The features c are those from which the entropy model predicts y and h2; the decoder has them anyway.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from compressai.models.utils import conv, deconv
from torch import Tensor, nn

from jointiq.layers.padding import Size, crop, pyramid
from jointiq.layers.transforms import SynthesisTransform

LEAKY_SLOPE = 0.2
#: Least channels of the last two layers, for networks smaller than the authors' (our choice).
NARROWEST = 4


class SynthesisFeatures(SynthesisTransform):
    """g_s without its last layer: y_hat (B, M, h, w) -> features (B, N, ceil(H / 2), ceil(W / 2)) of a HxW image."""

    def __init__(self, N: int, M: int) -> None:
        super().__init__(N, M)
        del self.deconvs[-1], self.igdns[-1]

    def forward(self, y_hat: Tensor, size: Size, gain: Tensor | None = None) -> Tensor:
        """Return the features; ``size`` is that of the image."""
        return super().forward(y_hat, pyramid(size, 1)[1], gain)


class Aggregation(nn.Module):
    """Features at 1/2 of the resolution and features of the hyperpriors -> image (B, 3, *size), about [-1, 1].

    Args:
        N: channels of the features of g_s.
        fine: channels of the features that predict y.
        coarse: channels of the features that predict h2, a multiple of four.
    """

    def __init__(self, N: int, fine: int, coarse: int) -> None:
        super().__init__()
        narrow, narrowest = max(N // 3, NARROWEST), max(N // 12, NARROWEST)
        self.up = nn.ModuleList([deconv(fine + coarse // 4, N), deconv(N, N), deconv(N, N)])
        self.residual = nn.ModuleList(
            conv(inputs, outputs, stride=1, kernel_size=3) for inputs, outputs in ((2 * N, N), (N, N), (N, 2 * N))
        )
        self.last_up = deconv(2 * N, narrow)
        self.conv = conv(narrow, narrowest, stride=1, kernel_size=3)
        self.to_image = nn.Conv2d(narrowest, 3, 1)

    def forward(self, features: Tensor, fine: Tensor, coarse: Tensor, size: Size) -> Tensor:
        """Join features (B, N, ...) at 1/2, (B, fine, ...) at 1/16 and (B, coarse, ...) at 1/32 of ``size``."""
        sizes = pyramid(size, 4)
        side = torch.cat([fine, crop(F.pixel_shuffle(coarse, 2), sizes[4])], 1)
        # As in the authors' code, no activation follows the first layer.
        side = crop(self.up[0](side), sizes[3])
        for layer, target in ((self.up[1], sizes[2]), (self.up[2], sizes[1])):
            side = F.leaky_relu(crop(layer(side), target), LEAKY_SLOPE)
        joined = torch.cat([features, side], 1)
        refined = joined
        for layer in self.residual:
            refined = F.leaky_relu(layer(refined), LEAKY_SLOPE)
        x = crop(self.last_up(joined + refined), size)
        return self.to_image(F.leaky_relu(self.conv(x), LEAKY_SLOPE))
