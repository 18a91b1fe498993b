"""Hooks that collect the integers which CompressAI's own coder encodes or decodes.

CompressAI's entropy models code symbols: a latent's rounded distances from its means. They make them right before the
coder (``quantize``) and add the means again right behind it (``dequantize``). Only there are both sides' integers to be
had: taken from decoded latents by subtracting the means, they would depend on how floats round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from compressai.entropy_models import EntropyModel
from torch import Tensor

from jointiq.entropy_models.integer.recorder import LATENT_MAX
from jointiq.errors import DataError
from jointiq.layers.padding import Size


@dataclass
class Passage:
    """The symbols of one latent that passed through the coder: at once, or position by position in raster order."""

    _symbols: list[Tensor] = field(default_factory=list)
    _latents: list[Tensor] = field(default_factory=list)

    def note(self, symbols: Tensor, latents: Tensor) -> None:
        """Keep what passes: symbols, int64, and what they stand for, (1, C, ...) each."""
        self._symbols.append(symbols)
        self._latents.append(latents)

    def symbols(self, size: Size) -> Tensor:
        """The coded integers, int64 (C, *size)."""
        return _joined(self._symbols, size)

    def latents(self, size: Size) -> Tensor:
        """The latent they stand for, float (C, *size)."""
        return _joined(self._latents, size)


@contextlib.contextmanager
def encoded(model: EntropyModel) -> Iterator[Passage]:
    """Watch ``model`` while it codes.

    Raises:
        DataError: a value that is not finite, or too large (CompressAI's coder would not return from some of them).
    """
    passage, quantize = Passage(), model.quantize

    def watched(inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        if mode != "symbols":
            return quantize(inputs, mode, means)
        distance = inputs if means is None else inputs - means
        # Not `> LATENT_MAX`: that is false for NaN.
        if not bool((distance.abs() <= LATENT_MAX).all()):
            raise DataError("the model gives no finite latents for this image; its weights are damaged or diverged")
        symbols = quantize(inputs, mode, means)
        passage.note(symbols.long(), symbols.float() if means is None else symbols + means)
        return symbols

    with _replaced(model, "quantize", watched):
        yield passage


@contextlib.contextmanager
def decoded(model: EntropyModel) -> Iterator[Passage]:
    """Watch ``model`` while it decodes."""
    passage, dequantize = Passage(), model.dequantize

    def watched(inputs: Tensor, means: Tensor | None = None, dtype: torch.dtype = torch.float) -> Tensor:
        # A copy, because the means are added in place where the types allow it.
        symbols = inputs.to(torch.int64, copy=True)
        latents = dequantize(inputs, means, dtype)
        passage.note(symbols, latents)
        return latents

    with _replaced(model, "dequantize", watched):
        yield passage


@contextlib.contextmanager
def _replaced(model: EntropyModel, name: str, function: Callable[..., Tensor]) -> Iterator[None]:
    vars(model)[name] = function
    try:
        yield
    finally:
        del vars(model)[name]


def _joined(parts: list[Tensor], size: Size) -> Tensor:
    if len(parts) == 1:
        return parts[0][0]
    return torch.stack([part.flatten() for part in parts], dim=1).unflatten(1, size)
