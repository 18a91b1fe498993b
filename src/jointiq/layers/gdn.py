"""Generalised divisive normalisation (Balle 2016): CompressAI's parameters, faster training, less memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from compressai.layers import GDN as CompressAIGDN
from torch import Tensor

# Pixels normalised at a time: 192 channels of them fill 50 MB.
STRIPE_PIXELS = 1 << 16


class GDN(CompressAIGDN):
    """y = x / sqrt(beta + gamma x^2) at each position, or x * sqrt(...) if ``inverse``: (B, C, H, W), same shape.

    Without gradients it works stripe by stripe, because three more maps of the half resolution of a 4K image would be
    gigabytes; with ``inplace`` it then overwrites its input.
    """

    def __init__(self, in_channels: int, inverse: bool = False, inplace: bool = False) -> None:
        super().__init__(in_channels, inverse)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and torch.is_autocast_enabled(x.device.type):
            # CompressAI's operations, each of which autocast gives its own precision.
            return super().forward(x)
        beta = self.beta_reparam(self.beta)
        gamma = self.gamma_reparam(self.gamma)[:, :, None, None]
        if torch.is_grad_enabled():
            y: Tensor = _Normalise.apply(x, beta, gamma, self.inverse)
            return y
        x = x if self.inplace else x.clone()
        rows = max(1, STRIPE_PIXELS // x.shape[-1])
        for stripe in x.split(rows, dim=2):
            norm = F.conv2d(stripe.square(), gamma, beta)
            stripe.mul_(norm.sqrt_() if self.inverse else norm.rsqrt_())
        return x


class _Normalise(torch.autograd.Function):
    """x * r with r = n^p, n = beta + gamma x^2 and p = 1/2 if ``inverse``, else -1/2; gamma (C, C, 1, 1).

    Its gradient reads the maps half as often as that of the single operations, which are bound by memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
        norm = F.conv2d(x.square(), gamma, beta)
        root = norm.sqrt_() if inverse else norm.rsqrt_()
        ctx.save_for_backward(x, root, gamma)
        ctx.inverse = inverse
        return x * root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, root, gamma = ctx.saved_tensors
        # dr/dn = p r / n: 1 / r for p = 1/2 and r^3 for p = -1/2, both times p.
        power = 0.5 if ctx.inverse else -0.5
        slope = grad * x
        slope = slope.div_(root) if ctx.inverse else slope.mul_(root).mul_(root).mul_(root)
        # Frozen weights need no gradient, which is half of the work.
        wanted = [True, ctx.needs_input_grad[2], ctx.needs_input_grad[1]]
        of_square, of_gamma, of_beta = torch.ops.aten.convolution_backward(
            slope, x.square(), gamma, [len(gamma)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, wanted
        )
        of_x = torch.mul(grad, root).addcmul_(of_square, x, value=2 * power)
        return of_x, of_beta * power if wanted[2] else None, of_gamma * power if wanted[1] else None, None
