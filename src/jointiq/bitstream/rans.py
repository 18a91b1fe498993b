"""Entropy coding of binary decisions with CompressAI's rANS coder (``compressai.ans``).

Every decision has one of 512 fixed probabilities, so only lists of table indices and bits reach the coder. Three of its
weaknesses are guarded against: it crashes on fewer than two symbols; it silently reads past the end of a truncated
stream; and after its escape symbol it reads as far as the data says, up to 15 times its length past the end. The
escape, the last entry of a table, therefore has width zero: no data can select it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from compressai import ans

from jointiq.bitstream.tables import PROBABILITY_BITS, decision_probabilities
from jointiq.errors import BitstreamError

# A decision costs at most 16 bits, so within one call the decoder can read at most this far past the end.
DECISIONS_PER_CALL = 1 << 16
_OVERREAD = bytes(2 * DECISIONS_PER_CALL + 16)
# What the coder adds to the cost of the decisions: its first state has 31 bits, its last fills 8 bytes or leaves the
# top half of them empty. One bit is left for the rounding of the coder.
_LEAST_UNUSED_BITS, _MOST_UNUSED_BITS = 31, 65
_STATE_BYTES = 8
_PADDING_DECISIONS = 2


@cache
def _tables() -> tuple[list[list[int]], list[int], list[int]]:
    """Return the CDFs, their sizes and offsets for the coder; symbol 0 is the bit 1, symbol 1 the bit 0, the last the
    escape.
    """
    one = 1 << PROBABILITY_BITS
    cdfs = [[0, p, one, one] for p in decision_probabilities().tolist()]
    return cdfs, [4] * len(cdfs), [0] * len(cdfs)


@cache
def _costs() -> np.ndarray:
    """Return the cost of a decision in bits: [table, bit]."""
    one = 1 << PROBABILITY_BITS
    p = decision_probabilities().numpy()
    return -np.log2(np.stack([one - p, p], axis=1) / one)


def encode_decisions(bits: np.ndarray, tables: np.ndarray) -> bytes:
    """Code ``bits`` (0/1) with the probabilities of ``tables`` (indices), in order."""
    padding = np.zeros(_PADDING_DECISIONS, dtype=np.int64)
    symbols = np.concatenate([1 - bits.astype(np.int64), padding])
    indices = np.concatenate([tables.astype(np.int64), padding + len(_costs()) - 1])
    return ans.RansEncoder().encode_with_indexes(symbols.tolist(), indices.tolist(), *_tables())


def decision_bits(bits: np.ndarray, tables: np.ndarray) -> float:
    """Return the cost of the decisions in bits, with an ideal coder."""
    return float(_costs()[tables, bits.astype(np.int64)].sum())


class DecisionDecoder:
    """Decoder of :func:`encode_decisions`, any number of decisions at a time.

    Args:
        data: the encoder's bytes.
        least: decisions that they must hold at least, so that a few bytes that claim to be a huge image are refused
            before anything is computed for them.

    Raises:
        BitstreamError: ``data`` is too short.
    """

    def __init__(self, data: bytes, least: int = 0) -> None:
        self._available = 8.0 * len(data)
        if len(data) < _STATE_BYTES or len(data) % 4 or least * float(_costs().min()) > self._available:
            raise BitstreamError("the compressed data is truncated")
        self._used = 0.0
        self._decoder = ans.RansDecoder()
        self._decoder.set_stream(data + _OVERREAD)

    def read(self, tables: np.ndarray) -> np.ndarray:
        """Decode the next ``len(tables)`` bits, uint8.

        Raises:
            BitstreamError: the data ends before them, or is not what the encoder writes.
        """
        parts = [
            self._read(tables[start : start + DECISIONS_PER_CALL])
            for start in range(0, len(tables), DECISIONS_PER_CALL)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.uint8), *parts])

    def _read(self, tables: np.ndarray) -> np.ndarray:
        bits = 1 - np.array(self._decoder.decode_stream(tables.tolist(), *_tables()), dtype=np.int64)
        self._used += float(_costs()[tables, bits].sum())
        if self._used > self._available - _LEAST_UNUSED_BITS:
            raise BitstreamError("the compressed data is truncated or damaged")
        return bits.astype(np.uint8)

    def finish(self) -> None:
        """Check that the data ends here.

        Raises:
            BitstreamError: the data goes on, or its closing decisions are wrong.
        """
        last = np.full(_PADDING_DECISIONS, len(_costs()) - 1)
        if not self.read(last).all() or self._used < self._available - _MOST_UNUSED_BITS:
            raise BitstreamError("the compressed data is damaged")
