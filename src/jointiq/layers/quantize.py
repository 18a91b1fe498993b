"""Rounding and its stand-in during training."""

from __future__ import annotations

import torch
from torch import Tensor


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest integer (ties to even), with the identity as gradient.

    The rule of ``torch.round``, by which the latents are coded too: training reconstructs from what a file would hold.
    """
    return x + (torch.round(x) - x).detach()


def add_uniform_noise(x: Tensor) -> Tensor:
    """x + u with u ~ U(-1/2, 1/2), the relaxation that the rate terms are trained with (Balle 2017)."""
    return x + torch.empty_like(x).uniform_(-0.5, 0.5)
