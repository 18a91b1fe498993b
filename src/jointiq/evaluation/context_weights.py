"""The trained weights psi of the global context as maps, and how many positions they spread over."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from jointiq.layers.block_context import BlockContext
from jointiq.layers.causal_sums import tap_is_known
from jointiq.layers.global_context import GlobalContext


def weight_maps(module: GlobalContext | BlockContext) -> NDArray[np.floating]:
    """Return softmax(psi) over the known offsets of each channel, (M, K + 1, 2K + 1); NaN where nothing is ever known.

    Rows are from K and more above (first) to the current row (last). In the order ``quarters``: over the blocks within
    reach, (M, side, side), with a position's own block in the middle.
    """
    if isinstance(module, BlockContext):
        near = module.psi.detach().cpu().double()[:, :-1]
        blocks: NDArray[np.floating] = torch.softmax(near, 1).unflatten(1, (math.isqrt(near.shape[1]), -1)).numpy()
        return blocks
    known = tap_is_known(module.scan, module.K)
    psi = module.psi.detach().cpu().double().masked_fill(~known, -torch.inf)
    weights = torch.softmax(psi.flatten(1), 1).view_as(psi).masked_fill(~known, torch.nan)
    maps: NDArray[np.floating] = weights.flip(1).numpy()
    return maps


def effective_positions(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return exp(entropy) of each channel's weights: 1 if one position has all, their number if all are equal."""
    weights = np.nan_to_num(maps).reshape(len(maps), -1)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(1)
    spread: NDArray[np.floating] = np.exp(entropy)
    return spread
