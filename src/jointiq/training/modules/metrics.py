"""What validation logs, as torchmetrics: every figure is the mean over the images of all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from jointiq.evaluation.metrics import batch_ms_ssim, batch_psnr


class MeanOverImages(Metric):
    """Mean of a figure over images, each of which counts the same; None where no image has it."""

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the figure of some images, one value each."""
        self.total = self.total + values.detach().double().sum()
        self.images = self.images + values.numel()

    def compute(self) -> Tensor | None:
        """The mean over the images of all processes, a scalar (float32)."""
        return (self.total / self.images).float() if self.images else None


class Psnr(MeanOverImages):
    """PSNR in dB of the 8-bit pictures: the mean of each image's, not the PSNR of the mean error."""

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add images and what was made of them, (B, 3, H, W) in [0, 1]."""
        super().update(batch_psnr(x, x_hat))


class MsSsim(MeanOverImages):
    """MS-SSIM (linear) of the 8-bit pictures, over the images that are large enough for it."""

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Add images and what was made of them, (B, 3, H, W) in [0, 1]."""
        super().update(batch_ms_ssim(x, x_hat))
