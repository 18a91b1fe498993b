"""Binary decisions through CompressAI's rANS coder (``compressai.ans``).

Every decision has one of 512 fixed probabilities, so only lists of table indices and bits reach the coder. What the coder
leaves open is closed here: it crashes on fewer than two symbols, reads past the end of a truncated stream without a word,
and returns arbitrary values after its escape symbol.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from compressai import ans

from src.bitstream.tables import PROBABILITY_BITS, decision_probabilities
from src.errors import BitstreamError

# A decision costs at most 16 bits, so within one call the decoder can read at most this far past the end.
DECISIONS_PER_CALL = 1 << 16
_OVERREAD = bytes(2 * DECISIONS_PER_CALL + 16)
# The coder's final state: 8 bytes, of which at most 4 hold no information.
_STATE_BITS = 64
_PADDING_DECISIONS = 2


@cache
def _tables() -> tuple[list[list[int]], list[int], list[int]]:
    """CDFs, their sizes and offsets as the coder wants them; symbol 0 is the bit 1, the last entry its unused escape."""
    one = 1 << PROBABILITY_BITS
    cdfs = [[0, p, one - 1, one] for p in decision_probabilities().tolist()]
    return cdfs, [4] * len(cdfs), [0] * len(cdfs)


@cache
def _costs() -> np.ndarray:
    """Bits of a decision: [table, bit]."""
    one = 1 << PROBABILITY_BITS
    p = decision_probabilities().numpy()
    return -np.log2(np.stack([one - 1 - p, p], axis=1) / one)


def encode_decisions(bits: np.ndarray, tables: np.ndarray) -> bytes:
    """Code ``bits`` (0/1) with the probabilities of ``tables`` (indices), in order."""
    padding = np.zeros(_PADDING_DECISIONS, dtype=np.int64)
    symbols = np.concatenate([1 - bits.astype(np.int64), padding])
    indices = np.concatenate([tables.astype(np.int64), padding + len(_costs()) - 1])
    return ans.RansEncoder().encode_with_indexes(symbols.tolist(), indices.tolist(), *_tables())


class DecisionDecoder:
    """Reads back what :func:`encode_decisions` wrote, any number of decisions at a time."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _STATE_BITS // 8 or len(data) % 4:
            raise BitstreamError("the compressed data is truncated")
        self._available = 8.0 * len(data)
        self._used = 0.0
        self._decoder = ans.RansDecoder()
        self._decoder.set_stream(data + _OVERREAD)

    def read(self, tables: np.ndarray) -> np.ndarray:
        """The next ``len(tables)`` bits, uint8.

        Raises:
            BitstreamError: the data ends before them, or is not what the encoder writes.
        """
        parts = [
            self._read(tables[start : start + DECISIONS_PER_CALL]) for start in range(0, len(tables), DECISIONS_PER_CALL)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.uint8), *parts])

    def _read(self, tables: np.ndarray) -> np.ndarray:
        symbols = np.array(self._decoder.decode_stream(tables.tolist(), *_tables()), dtype=np.int64)
        if (symbols >> 1).any():
            raise BitstreamError("the compressed data is damaged")
        bits = 1 - symbols
        self._used += float(_costs()[tables, bits].sum())
        if self._used > self._available:
            raise BitstreamError("the compressed data is truncated or damaged")
        return bits.astype(np.uint8)

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            BitstreamError: the data goes on, or its closing decisions are wrong.
        """
        last = np.full(_PADDING_DECISIONS, len(_costs()) - 1)
        if not self.read(last).all() or self._used < self._available - _STATE_BITS - 32:
            raise BitstreamError("the compressed data is damaged")
