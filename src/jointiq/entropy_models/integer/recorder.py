"""Symbols to coded binary decisions and back: the recorder of an encoder and the reader of a decoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jointiq.bitstream.binarisation import STAGES, CodeStage, Distribution, binarise, known_bits
from jointiq.bitstream.rans import DecisionDecoder, decision_bits, encode_decisions
from jointiq.errors import BitstreamError

LATENT_MAX = (1 << 23) - 1


class Recorder:
    """Collects the decisions of an encoder, in any order of symbols, and codes them in the order of the scan."""

    def __init__(self) -> None:
        self._keys: list[np.ndarray] = []
        self._bits: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []

    def record(self, distribution: Distribution, values: Tensor, step: Tensor) -> None:
        """All decisions of symbols with known ``values``; ``step`` says in which step of the scan each is coded."""
        look_up = known_bits(values, distribution.centre)

        def code(stage: int, members: Tensor | slice, levels: Tensor) -> Tensor:
            bits = look_up(stage, members, levels)
            self._keys.append((step[members] * STAGES + stage).cpu().numpy())
            self._bits.append(bits.cpu().numpy())
            self._levels.append(levels.cpu().numpy())
            return bits

        binarise(distribution, code)

    def encode(self) -> bytes:
        """The coded decisions."""
        order = np.argsort(np.concatenate(self._keys), kind="stable")
        return encode_decisions(np.concatenate(self._bits)[order], np.concatenate(self._levels)[order])

    def bits(self) -> float:
        """What the decisions cost by the integer probabilities, with an ideal coder."""
        return decision_bits(np.concatenate(self._bits), np.concatenate(self._levels))


def reader(decoder: DecisionDecoder) -> CodeStage:
    """Return the decoder's source of bits for :func:`jointiq.bitstream.binarisation.binarise`."""

    def code(_stage: int, _members: Tensor | slice, levels: Tensor) -> Tensor:
        return torch.from_numpy(decoder.read(levels.cpu().numpy())).to(levels.device).bool()

    return code


def in_range(latent: Tensor, device: torch.device) -> Tensor:
    """A latent as int64 on ``device``.

    Raises:
        BitstreamError: a value is too large to be coded.
    """
    values = latent.to(device=device, dtype=torch.int64)
    if values.numel() and int(values.abs().max()) > LATENT_MAX:
        raise BitstreamError(f"a latent value is beyond +-{LATENT_MAX}; the model has diverged on this image")
    return values
