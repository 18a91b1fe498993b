"""The fixed integer tables of the format. Part of the bitstream definition: they never change within a format version.

Each entry is a mathematical quantity rounded to an integer. The tests check with arbitrary precision that no entry lies
so near a rounding boundary that the last digits of a machine's ``exp`` or ``erfc`` could tip it, so every machine
computes the same tables. A device keeps its own copy of each.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

# Normal CDF: entry i is round(2^30 * Phi((i - 8192) / 1024)), i = 0 .. 16384.
CDF_BITS = 30
CDF_STEP_BITS = 10
CDF_REACH = 8
CDF_CENTRE = CDF_REACH << CDF_STEP_BITS

# Exponential: entry i is round(2^20 * exp(-i / 256)), i = 0 .. 4095.
EXP_BITS = 20
EXP_STEP_BITS = 8
EXP_ENTRIES = 4096

# Sigma levels: level i stands for sigma = 0.11 * exp(i / 64), i = 0 .. 629 (up to 2042).
# Entry i is round(2^24 / sigma).
SIGMA_MIN_MICRO = 110_000
SIGMA_STEP_BITS = 6
SIGMA_LEVELS = 630
INVERSE_SIGMA_BITS = 24

# Probabilities of binary decisions: 512 levels, evenly spaced in the logit domain.
PROBABILITY_BITS = 16
PROBABILITY_LEVELS = 512
LOGIT_REACH = math.log(32767)


Device = torch.device | str
_CPU = torch.device("cpu")


@cache
def normal_cdf(device: Device = _CPU) -> Tensor:
    """Return Phi in 30 bits at steps of 1/1024 from -8 to 8: int64 (16385,)."""
    steps = range(-CDF_CENTRE, CDF_CENTRE + 1)
    scale = 1 << CDF_BITS
    return torch.tensor(
        [round(scale * 0.5 * math.erfc(-i / (1 << CDF_STEP_BITS) / math.sqrt(2))) for i in steps], device=device
    )


@cache
def exp_table(device: Device = _CPU) -> Tensor:
    """Return exp(-i / 256) in 20 bits: int64 (4096,)."""
    return torch.tensor(
        [round((1 << EXP_BITS) * math.exp(-i / (1 << EXP_STEP_BITS))) for i in range(EXP_ENTRIES)], device=device
    )


@cache
def inverse_sigma(device: Device = _CPU) -> Tensor:
    """Return 1 / sigma of each level in 24 fractional bits: int64 (630,)."""
    scale = (1 << INVERSE_SIGMA_BITS) * 1_000_000 / SIGMA_MIN_MICRO
    inverses = [round(scale * math.exp(-i / (1 << SIGMA_STEP_BITS))) for i in range(SIGMA_LEVELS)]
    return torch.tensor(inverses, device=device)


@cache
def decision_probabilities(device: Device = _CPU) -> Tensor:
    """Return the probability of a 1, in 1/65536, of each decision table: int64 (512,), rising, 1 .. 65534."""
    levels = [LOGIT_REACH * ((2 * i + 1) / PROBABILITY_LEVELS - 1) for i in range(PROBABILITY_LEVELS)]
    one = 1 << PROBABILITY_BITS
    return torch.tensor([min(max(round(one / (1 + math.exp(-logit))), 1), one - 2) for logit in levels], device=device)


@cache
def probability_to_level(device: Device = _CPU) -> Tensor:
    """Return the decision table for each probability q / 65536 of a 1: int64 (65536,).

    A table is used from the probability halfway, in the logit domain, to the table below it.
    """
    one = 1 << PROBABILITY_BITS
    edges = []
    for i in range(1, PROBABILITY_LEVELS):
        logit = LOGIT_REACH * (2 * i / PROBABILITY_LEVELS - 1)
        edges.append(math.ceil(one / (1 + math.exp(-logit))))
    return torch.bucketize(torch.arange(one), torch.tensor(edges), right=True).to(device)
