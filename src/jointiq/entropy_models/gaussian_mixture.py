"""Mixture of G Gaussians * U(-1/2, 1/2), the prior of y_hat (JointIQ-Net Eq. 3): training likelihood and integer form.

Layout of the parameters, defined here once and used by training and coding:

    (B, 3, G, M, H, W) = weight logits, means, log sigmas

With G = 1 the estimator gives two parameters (no weight) and the logit reads zero. sigma >= 0.11.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from compressai.ops.bound_ops import LowerBoundFunction
from torch import Tensor

from jointiq.bitstream.tables import (
    CDF_BITS,
    CDF_CENTRE,
    CDF_STEP_BITS,
    EXP_ENTRIES,
    EXP_STEP_BITS,
    INVERSE_SIGMA_BITS,
    SIGMA_LEVELS,
    SIGMA_STEP_BITS,
    exp_table,
    inverse_sigma,
    normal_cdf,
)
from jointiq.layers.integer_layers import FRACTION_BITS, ONE

#: Lowest sigma: CompressAI's, our choice (the papers name none).
SIGMA_MIN = 0.11
SIGMA_MAX = 2048.0
_ROOT_HALF = math.sqrt(0.5)


def parameter_kinds(G: int) -> int:
    """Parameters of one Gaussian: logit, mean, log sigma; a single Gaussian has no logit."""
    return 3 if G > 1 else 2


def split_parameters(parameters: Tensor, G: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, parameter_kinds(G) * G * M, H, W) -> logits, means, log sigmas, each (B, G, M, H, W)."""
    batch, channels, height, width = parameters.shape
    kinds = parameter_kinds(G)
    parts = parameters.view(batch, kinds, G, channels // (kinds * G), height, width)
    # The gradient of slices would fill a map for each of them.
    *logits, means, log_sigmas = parts.unbind(1)
    return logits[0] if G > 1 else torch.zeros_like(means), means, log_sigmas


_watchers: list[list[Tensor]] = []


@contextlib.contextmanager
def watch_log_sigmas() -> Iterator[list[Tensor]]:
    """Collect the log sigmas that are evaluated while the context lasts, detached and before they are bounded."""
    _watchers.append([])
    try:
        yield _watchers[-1]
    finally:
        _watchers.pop()


def bound_log_sigma(log_sigma: Tensor) -> Tensor:
    """Keep sigma in [0.11, 2048]; below the lower bound only gradients that would raise sigma pass."""
    for seen in _watchers:
        seen.append(log_sigma.detach())
    lower: Tensor = LowerBoundFunction.apply(log_sigma, log_sigma.new_tensor(math.log(SIGMA_MIN)))
    return lower.clamp(max=math.log(SIGMA_MAX))


def log_mass(values: Tensor, means: Tensor, log_sigmas: Tensor) -> Tensor:
    """log of the mass that N(mean, sigma^2) puts on [value - 1/2, value + 1/2], in nats.

    Stable at any distance. The interval is mirrored into the lower tail, where with u and l, its ends in sigmas,

        Phi(u) - Phi(l) = exp(-u^2 / 2) / 2 * (erfcx(-u / sqrt 2) - erfcx(-l / sqrt 2) * exp((u^2 - l^2) / 2))

    and only the first factor leaves the range of floats; its logarithm is known. erfcx(x) is exp(x^2) erfc(x).
    """
    distance = -(values - means).abs()
    inverse_sigma = torch.exp(-log_sigmas)
    upper, lower = (distance + 0.5) * inverse_sigma, (distance - 0.5) * inverse_sigma
    # (u^2 - l^2) / 2, without the difference of two squares.
    ratio = torch.exp(distance * inverse_sigma.square())
    scaled = torch.special.erfcx(upper * -_ROOT_HALF) - torch.special.erfcx(lower * -_ROOT_HALF) * ratio
    # Kept off zero for sigmas so wide that floats cannot tell the two apart.
    return torch.log(scaled.clamp(min=torch.finfo(scaled.dtype).tiny)) - 0.5 * upper.square() - math.log(2)


def log_likelihood(y: Tensor, parameters: Tensor, G: int) -> Tensor:
    """Log-likelihood of y (B, M, H, W) in nats, same shape, always in float32.

    ``parameters`` as in :func:`split_parameters`. bf16 would round y itself (130.6 -> 131), hence the cast at the door.
    """
    with torch.autocast(y.device.type, enabled=False):
        logits, means, log_sigmas = split_parameters(parameters.float(), G)
        # In the layout of the parameters: between two, arithmetic is five times slower on a CPU.
        layout = torch.channels_last if parameters.stride(1) == 1 else torch.contiguous_format
        y = y.float().contiguous(memory_format=layout)
        log_masses = log_mass(y.unsqueeze(1), means, bound_log_sigma(log_sigmas))
        if G == 1:
            return log_masses[:, 0]
        return torch.logsumexp(torch.log_softmax(logits, dim=1) + log_masses, dim=1)


MIXTURE_BITS = 16
# Distances beyond this lie outside the CDF table for every sigma.
_DISTANCE_MAX = (1 << (FRACTION_BITS + 15)) - 1
_SIGMA_LEVEL_SHIFT = FRACTION_BITS - SIGMA_STEP_BITS
_LOG_SIGMA_MIN = round(math.log(SIGMA_MIN) * ONE)


def sigma_level(log_sigma: Tensor) -> Tensor:
    """Level of the sigma table nearest to a fixed-point log sigma (int64)."""
    level = (log_sigma - _LOG_SIGMA_MIN + (1 << (_SIGMA_LEVEL_SHIFT - 1))) >> _SIGMA_LEVEL_SHIFT
    return level.clamp(0, SIGMA_LEVELS - 1)


class IntegerMixture:
    """The integer form: distributions of a set of symbols, for :func:`jointiq.bitstream.binarisation.binarise`.

    Args:
        logits, means, log_sigmas: (G, symbols) int64, fixed point with 12 fractional bits.

    Masses are out of 2^46 = 2^16 (mixture weights) * 2^30 (normal CDF).
    """

    total = 1 << (MIXTURE_BITS + CDF_BITS)

    def __init__(self, logits: Tensor, means: Tensor, log_sigmas: Tensor) -> None:
        self.means = means
        self.inverse_sigmas = inverse_sigma(means.device)[sigma_level(log_sigmas)]
        self.weights = mixture_weights(logits)
        mean = (self.weights * means).sum(0)
        shift = MIXTURE_BITS + FRACTION_BITS
        self.centre = (mean + (1 << (shift - 1))) >> shift

    @classmethod
    def of_parameters(cls, *parameters: Tensor, G: int) -> IntegerMixture:
        """From fixed-point parameters (positions, parameter_kinds(G) * G * channels), one row a position, of one set of
        positions and channels after the other; symbols are ordered by set, position, channel.
        """
        kinds = parameter_kinds(G)
        sets = [each.long().view(len(each), kinds, G, -1).permute(1, 2, 0, 3).flatten(2) for each in parameters]
        parts = sets[0] if len(sets) == 1 else torch.cat(sets, 2)
        logits = parts[0] if G > 1 else torch.zeros_like(parts[0])
        return cls(logits, parts[-2], parts[-1])

    def below(self, members: Tensor | slice, offset: Tensor | int) -> Tensor:
        boundary = ((self.centre[members] + offset) << FRACTION_BITS) - (ONE >> 1)
        distance = (boundary - self.means[:, members]).clamp_(-_DISTANCE_MAX, _DISTANCE_MAX)
        shift = FRACTION_BITS + INVERSE_SIGMA_BITS - CDF_STEP_BITS
        index = (distance.mul_(self.inverse_sigmas[:, members]).add_(1 << (shift - 1))) >> shift
        cdf = normal_cdf(index.device)[index.clamp_(-CDF_CENTRE, CDF_CENTRE).add_(CDF_CENTRE)]
        return cdf.mul_(self.weights[:, members]).sum(0)


def mixture_weights(logits: Tensor) -> Tensor:
    """Softmax over the Gaussians in integers that add up to 2^16; what division leaves over goes to the first. (G, n)
    int64.
    """
    drop = (logits.amax(0) - logits) >> (FRACTION_BITS - EXP_STEP_BITS)
    powers = exp_table(logits.device)[drop.clamp_(max=EXP_ENTRIES - 1)]
    weights = (powers << MIXTURE_BITS) // powers.sum(0)
    weights[0] += (1 << MIXTURE_BITS) - weights.sum(0)
    return weights
