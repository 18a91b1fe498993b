"""Metrics of the validation (torchmetrics): means over the images of all processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

from jointiq.evaluation.metrics import batch_ms_ssim, batch_psnr


class MeanOverImages(Metric):
    """Mean of a value over images, each of which counts the same; None where no image has one."""

    full_state_update = False
    #: Returns the value of each image, (B,), from the arguments of :meth:`update`; here that is its one argument.
    of_images: Callable[..., Tensor] = staticmethod(torch.clone)
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, *images: Tensor) -> None:
        """Add images, given as the arguments of :meth:`of_images`."""
        values = self.of_images(*images).detach()
        self.total = self.total + values.double().sum()
        self.images = self.images + values.numel()

    def compute(self) -> Tensor | None:
        """Return the mean over the images of all processes, a float32 scalar."""
        return (self.total / self.images).float() if self.images else None


class Psnr(MeanOverImages):
    """PSNR in dB of the 8-bit pictures: the mean of each image's, not the PSNR of the mean error."""

    of_images = staticmethod(batch_psnr)


class MsSsim(MeanOverImages):
    """MS-SSIM (linear) of the 8-bit pictures, over the images that are large enough for it."""

    of_images = staticmethod(batch_ms_ssim)
