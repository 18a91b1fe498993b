import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jointiq.bitstream.binarisation import STAGES, binarise, known_bits, level_of
from jointiq.bitstream.rans import DecisionDecoder, encode_decisions
from jointiq.entropy_models.gaussian_mixture import IntegerMixture
from jointiq.errors import BitstreamError


def mixture(symbols, seed=0, sigma=1.0, G=3):
    """A random exact mixture of ``symbols`` symbols, means within +-6."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-8192, 8192, (G, symbols), generator=generator)
    means = torch.randint(-6 * 4096, 6 * 4096, (G, symbols), generator=generator)
    log_sigmas = torch.full((G, symbols), round(float(np.log(sigma)) * 4096))
    return IntegerMixture(logits, means, log_sigmas)


def encode(distribution, values):
    bits, levels = [], []
    look_up = known_bits(values, distribution.centre)

    def code(stage, members, tables):
        assert 0 <= stage < STAGES
        result = look_up(stage, members, tables)
        bits.append(result.numpy())
        levels.append(tables.numpy())
        return result

    assert torch.equal(binarise(distribution, code), values)
    return encode_decisions(np.concatenate(bits), np.concatenate(levels)), len(np.concatenate(bits))


def decode(distribution, data):
    decoder = DecisionDecoder(data)
    values = binarise(
        distribution, lambda _stage, _members, tables: torch.from_numpy(decoder.read(tables.numpy())).bool()
    )
    decoder.finish()
    return values


def draw(distribution, seed=0):
    """Values from the integer distribution itself, by inversion."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, distribution.total, distribution.centre.shape, generator=generator)
    value = torch.full_like(target, -40)
    everything = slice(None)
    for offset in range(-39, 41):
        value[distribution.below(everything, torch.tensor(offset)) <= target] = offset
    return distribution.centre + value


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(2**22), 2**22) | st.integers(-8, 8) | st.integers(4900, 5100), min_size=1, max_size=60),
    st.integers(0, 10**6),
    st.sampled_from([0.11, 1.0, 30.0, 2000.0]),
    st.sampled_from([1, 3]),
)
def test_any_integers_come_back(values, seed, sigma, G):
    distribution = mixture(len(values), seed, sigma, G)
    values = torch.tensor(values)
    data, _ = encode(distribution, values)
    assert torch.equal(decode(distribution, data), values)


@pytest.mark.parametrize("magnitude", [5000, 65535, 65536, (1 << 22) - 1, 1 << 22, (1 << 23) - 1])
def test_large_values(magnitude):
    values = torch.tensor([magnitude, -magnitude, 0, magnitude])
    distribution = mixture(4, sigma=0.11)
    data, _ = encode(distribution, values)
    assert torch.equal(decode(distribution, data), values)


def test_beyond_the_largest_value_is_an_error():
    distribution = mixture(1)
    with pytest.raises(BitstreamError, match="out of range"):
        encode(distribution, torch.tensor([1 << 25]))


def test_all_zero():
    zeros = torch.zeros(1, 500, dtype=torch.int64)
    distribution = IntegerMixture(zeros, zeros, zeros - 9000)
    data, decisions = encode(distribution, zeros[0])
    assert decisions == 500 and len(data) == 8
    assert torch.equal(decode(distribution, data), zeros[0])


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_size_is_the_ideal_one(sigma):
    distribution = mixture(60_000, sigma=sigma)
    values = draw(distribution)
    data, decisions = encode(distribution, values)
    offset = values - distribution.centre
    below = distribution.below(slice(None), offset)
    mass = distribution.below(slice(None), offset + 1) - below
    assert bool((mass > 0).all()) and values.unique().numel() > 5
    ideal = float(-torch.log2(mass.double() / distribution.total).sum())
    assert 8 * len(data) < 1.005 * ideal + 64
    assert decisions < 6 * len(values)


def test_another_distribution_gives_other_bits():
    values = torch.randint(-5, 6, (200,))
    one, other = mixture(200, seed=1), mixture(200, seed=2)
    data, _ = encode(one, values)
    assert encode(other, values)[0] != data
    with contextlib.suppress(BitstreamError):
        assert not torch.equal(decode(other, data), values)


def test_levels_of_certain_and_empty_masses():
    total = 1 << 46
    ones = torch.tensor([0, total, 0, total // 2])
    zeros = torch.tensor([total, 0, 0, total - total // 2])
    assert level_of(ones, zeros).tolist() == [0, 511, 256, 256]
