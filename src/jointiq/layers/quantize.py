"""Quantisation: rounding with a straight-through gradient, and uniform noise in its place."""

from __future__ import annotations

import torch
from torch import Tensor


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest integer (ties to even), with the identity as gradient.

    Coding has the same rule, ``torch.round``: training reconstructs from the latents that a file would hold.
    """
    return x + (torch.round(x) - x).detach()


def add_uniform_noise(x: Tensor) -> Tensor:
    """Return x + u with u ~ U(-1/2, 1/2), the relaxation that the rate terms are trained with (Balle 2017)."""
    return x + torch.empty_like(x).uniform_(-0.5, 0.5)
