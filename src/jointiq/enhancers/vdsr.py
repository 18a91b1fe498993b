"""VDSR, very deep super-resolution (Kim et al. 2016), one of the enhancers of JointIQ-Net's Figure 4."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from jointiq.enhancers import EnhancerSettings, register_enhancer
from jointiq.parts import at_least


@dataclass(frozen=True)
class VDSRSettings(EnhancerSettings):
    """Settings of :class:`VDSR`.

    Attributes:
        layers: convolutions in all, the last one included; 20 in VDSR's paper.
        kernels: filters of each convolution but the last; 64 in VDSR's paper.
    """

    layers: int = at_least(2)
    kernels: int = at_least(1)


@register_enhancer("vdsr", VDSRSettings)
class VDSR(nn.Module):
    """VDSR: image (B, 3, H, W), about [-1, 1] -> enhanced image of the same shape, not clamped.

        x -> conv 3x3, ReLU -> ... -> conv 3x3, ReLU -> conv 3x3 -> (+) -> x'
        |   `------------ ``layers`` - 1 -----------'                |
        +-----------------------------------------------------------+

    Everything works at full resolution. The weights before a ReLU start as in He et al. 2015, as VDSR's authors have
    it: PyTorch's default lets the signal fade to nothing over so many layers without shortcuts. The last layer keeps
    the default, so that x' starts near x.
    """

    def __init__(self, settings: VDSRSettings) -> None:
        super().__init__()
        layers, kernels = settings.layers, settings.kernels
        body: list[nn.Module] = []
        for channels in (3, *[kernels] * (layers - 2)):
            conv = nn.Conv2d(channels, kernels, kernel_size=3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            body += [conv, nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body)
        self.tail = nn.Conv2d(kernels, 3, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tail(self.body(x))
