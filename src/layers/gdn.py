"""Generalised divisive normalisation (Balle 2016) with CompressAI's parameters, frugal outside of training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from compressai.layers import GDN as CompressAIGDN
from torch import Tensor

# Pixels normalised at a time: 192 channels of them fill 50 MB.
STRIPE_PIXELS = 1 << 16


class GDN(CompressAIGDN):
    """y = x / sqrt(beta + gamma x^2) at each position, or x * sqrt(...) if ``inverse``: (B, C, H, W), same shape.

    Without gradients it overwrites its input, stripe by stripe, because three more maps of the half resolution of a 4K
    image would be gigabytes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        beta = self.beta_reparam(self.beta)
        gamma = self.gamma_reparam(self.gamma)[:, :, None, None]
        rows = max(1, STRIPE_PIXELS // x.shape[-1])
        for stripe in x.split(rows, dim=2):
            norm = F.conv2d(stripe.square(), gamma, beta)
            stripe.mul_(norm.sqrt_() if self.inverse else norm.rsqrt_())
        return x
