import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jointiq.bitstream.rans import DECISIONS_PER_CALL, DecisionDecoder, encode_decisions
from jointiq.bitstream.tables import decision_probabilities
from jointiq.errors import BitstreamError


def sample(count, seed=0, low=0, high=512):
    """Decisions as likely as their tables say."""
    rng = np.random.default_rng(seed)
    tables = rng.integers(low, high, count)
    bits = (rng.random(count) < decision_probabilities().numpy()[tables] / 65536).astype(np.uint8)
    return bits, tables


def cost(bits, tables):
    p = decision_probabilities().numpy()[tables] / 65536
    return float(-np.log2(np.where(bits, p, 1 - p)).sum())


def decode(data, tables, pieces=1):
    decoder = DecisionDecoder(data)
    bits = np.concatenate([decoder.read(part) for part in np.array_split(tables, pieces)])
    decoder.finish()
    return bits


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 511)), max_size=300), st.integers(1, 7))
def test_any_decisions_come_back_in_any_pieces(decisions, pieces):
    bits = np.array([bit for bit, _ in decisions], dtype=np.uint8)
    tables = np.array([table for _, table in decisions], dtype=np.int64)
    assert np.array_equal(decode(encode_decisions(bits, tables), tables, pieces), bits)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_very_few_decisions(count):
    bits, tables = sample(count)
    data = encode_decisions(bits, tables)
    assert len(data) == 8
    assert np.array_equal(decode(data, tables), bits)


def test_size_is_the_ideal_one():
    bits, tables = sample(200_000)
    data = encode_decisions(bits, tables)
    # At the least 31 bits, at the most 64 for the state of the coder.
    assert 31 <= 8 * len(data) - cost(bits, tables) <= 65


def test_more_decisions_than_one_call_takes():
    bits, tables = sample(2 * DECISIONS_PER_CALL + 77, low=200, high=312)
    assert np.array_equal(decode(encode_decisions(bits, tables), tables), bits)


def test_unlikely_decisions():
    tables = np.repeat([0, 511], 500)
    bits = np.repeat([1, 0], 500).astype(np.uint8)
    data = encode_decisions(bits, tables)
    assert 8 * len(data) > 1000 * 14.9
    assert np.array_equal(decode(data, tables), bits)


@pytest.mark.parametrize("seed", range(5))
def test_truncated_data_is_an_error(seed):
    bits, tables = sample(3000, seed)
    data = encode_decisions(bits, tables)
    # One missing word is noticed here in all but 1 of 32 cases, and by the checksum of the file in all.
    for length in {0, 4, 7, 8, 12, len(data) // 8 * 4, len(data) - 8, len(data) - 3, len(data) - 1}:
        with pytest.raises(BitstreamError):
            decode(data[:length], tables)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 8, b"\xff" * 8, b"\0" * 400])
def test_bytes_at_the_end_are_an_error(tail):
    bits, tables = sample(3000)
    with pytest.raises(BitstreamError):
        decode(encode_decisions(bits, tables) + tail, tables)


@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x7F, 0x80])
@pytest.mark.parametrize("length", [8, 20_000, 400_000])
def test_garbage_ends_in_an_error(fill, length):
    """0xFF in the first place: it selects the escape of a table that has one, which reads far out of bounds."""
    tables = np.full(100_000, 256)
    with pytest.raises(BitstreamError):
        decode(bytes([fill]) * length, tables)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=8, max_size=400), st.integers(0, 2**32))
def test_random_bytes_end_in_an_error_or_in_bits(data, seed):
    _, tables = sample(2000, seed)
    try:
        bits = decode(data, tables)
    except BitstreamError:
        return
    assert set(bits.tolist()) <= {0, 1}


def test_too_little_data_for_what_it_must_hold():
    bits, tables = np.ones(1000, np.uint8), np.full(1000, 511)
    data = encode_decisions(bits, tables)
    assert len(data) == 8
    DecisionDecoder(data, least=1000)
    with pytest.raises(BitstreamError, match="truncated"):
        DecisionDecoder(data, least=10_000_000)
