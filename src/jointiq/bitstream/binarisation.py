"""Binarisation: integers as sequences of binary decisions, each with its probability from the model's CDF.

A value is coded as v = value - centre: zero? sign? then the magnitude |v|: its exponent in unary (>= 2? >= 4? ...), its
mantissa from the top bit (an Exp-Golomb code whose bits have adaptive probabilities). There is no escape code: any
magnitude below 2^24 can be coded, and likely values take few decisions. A set of symbols goes through the decisions
together, stage by stage; a stage holds the symbols that reach it, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from jointiq.bitstream.tables import PROBABILITY_BITS, probability_to_level
from jointiq.errors import BitstreamError

MAX_EXPONENT = 23
SIGN_STAGE = 1
EXPONENT_STAGE = 2
MANTISSA_STAGE = EXPONENT_STAGE + MAX_EXPONENT + 1
STAGES = MANTISSA_STAGE + MAX_EXPONENT


class Distribution(Protocol):
    """Integer distributions of a set of symbols, one each."""

    centre: Tensor
    total: int

    def below(self, members: Tensor | slice, offset: Tensor | int) -> Tensor:
        """Return the mass, out of ``total``, that the symbols ``members`` put below centre + offset: int64."""
        ...


# Codes one stage: (stage, which symbols, table index of each) -> their bits as bool.
CodeStage = Callable[[int, Tensor | slice, Tensor], Tensor]


def level_of(ones: Tensor, zeros: Tensor) -> Tensor:
    """Return the index of the decision table for the masses of the outcomes 1 and 0; the +1 covers empty tails."""
    probability = ((ones + 1) << PROBABILITY_BITS) // (ones + zeros + 2)
    return probability_to_level(ones.device)[probability]


def binarise(distribution: Distribution, code: CodeStage) -> Tensor:
    """Code a set of symbols, stage by stage, and return their values (int64).

    ``code`` supplies the bits: a decoder reads them, an encoder looks them up in the values (:func:`known_bits`). Both
    get the same stages, members and tables.

    Raises:
        BitstreamError: a magnitude of 2^24 or more.
    """
    total = distribution.total
    everything = slice(None)
    below_zero = distribution.below(everything, 0)
    below_one = distribution.below(everything, 1)
    at_centre = below_one - below_zero
    is_zero = code(0, everything, level_of(at_centre, total - at_centre))

    members = torch.nonzero(~is_zero).flatten()
    value = distribution.centre.clone()
    if len(members) == 0:
        return value
    above, under = total - below_one[members], below_zero[members]
    positive = code(SIGN_STAGE, members, level_of(above, under))
    sign = positive.long() * 2 - 1

    def tail(which: Tensor, magnitude: Tensor) -> Tensor:
        """Return the mass of |v| >= magnitude on the side of the sign."""
        side = positive[which]
        mass = distribution.below(members[which], torch.where(side, magnitude, 1 - magnitude))
        return torch.where(side, total - mass, mass)

    # Exponents: magnitude in [low, 2 low), with the masses from `low` up and from `2 low` up kept for the mantissa.
    exponent = torch.zeros_like(members)
    mass_low = torch.where(positive, above, under)
    mass_high = torch.zeros_like(mass_low)
    active = torch.arange(len(members), device=members.device)
    for step in range(MAX_EXPONENT + 1):
        beyond = tail(active, torch.full_like(active, 2 << step))
        larger = code(EXPONENT_STAGE + step, members[active], level_of(beyond, mass_low[active] - beyond))
        mass_high[active] = beyond
        active = active[larger]
        if len(active) == 0:
            break
        if step == MAX_EXPONENT:
            raise BitstreamError("a latent value is out of range")
        exponent[active] += 1
        mass_low[active] = mass_high[active]

    low = torch.ones_like(exponent) << exponent
    largest = int(exponent.max())
    for bit in range(largest - 1, -1, -1):
        active = torch.nonzero(exponent > bit).flatten()
        middle = low[active] + (1 << bit)
        mass_middle = tail(active, middle)
        upper = mass_middle - mass_high[active]
        lower = mass_low[active] - mass_middle
        is_upper = code(MANTISSA_STAGE + MAX_EXPONENT - 1 - bit, members[active], level_of(upper, lower))
        low[active] = torch.where(is_upper, middle, low[active])
        mass_low[active] = torch.where(is_upper, mass_middle, mass_low[active])
        mass_high[active] = torch.where(is_upper, mass_high[active], mass_middle)
    value[members] += sign * low
    return value


def known_bits(values: Tensor, centre: Tensor) -> CodeStage:
    """Return the encoder's source of bits for :func:`binarise`, from the values."""
    offset = values - centre
    magnitude = offset.abs()

    def bits(stage: int, members: Tensor | slice, _levels: Tensor) -> Tensor:
        if stage == 0:
            return offset[members] == 0
        if stage == SIGN_STAGE:
            return offset[members] > 0
        if stage < MANTISSA_STAGE:
            return magnitude[members] >= 2 << (stage - EXPONENT_STAGE)
        bit = MANTISSA_STAGE + MAX_EXPONENT - 1 - stage
        return (magnitude[members] >> bit & 1).bool()

    return bits
