"""Models whose latents are coded exactly: from z_hat to the probability index everything is evaluated on integers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol, Self

import torch
from torch import Tensor

from jointiq.entropy_models.integer.recorder import Recorder
from jointiq.layers.padding import Size
from jointiq.models.base import (
    CodedLatents,
    DecodedLatents,
    Latents,
    LearnedCodec,
    bits,
    pack_segments,
    unpack_segments,
)


class IntegerTwin(Protocol):
    """The integer form of an entropy model."""

    @property
    def device(self) -> torch.device: ...

    def to(self, device: torch.device | str) -> Self:
        """The same model on ``device``."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All integers that define the model, by name."""
        ...

    def record(self, latents: Latents) -> dict[str, Recorder]:
        """The decisions that code each latent, (C, h, w) integers."""
        ...

    def decode(self, segments: Mapping[str, bytes], size: Size) -> Latents:
        """The latents, int64 (C, h, w), of an image of the given size from the coded decisions."""
        ...


class ExactCodec(LearnedCodec):
    """A :class:`LearnedCodec` with an integer twin of its entropy model, derived from the weights when first needed.

    Subclasses say how it is derived (:meth:`quantise_entropy_model`) and read back (:meth:`restore_exact`).
    """

    _exact: IntegerTwin | None

    @abstractmethod
    def quantise_entropy_model(self) -> IntegerTwin:
        """Derive the integers from the float weights; the same on every machine."""

    @property
    def exact(self) -> IntegerTwin:
        """The integer entropy model of the present weights, on the device of the model."""
        if self._exact is None:
            self.update()
        assert self._exact is not None
        if self._exact.device != self.device:
            self._exact = self._exact.to(self.device)
        return self._exact

    def use_exact(self, exact: IntegerTwin) -> None:
        """Code with stored integers in place of those derived from the float weights."""
        self._exact = exact
        self.cached_fingerprint = None

    def update(self, *_args: object, force: bool = False, **_kwargs: object) -> bool:
        """Derive the integer entropy model from the weights; True if that was done (the contract of CompressAI)."""
        if self._exact is not None and not force:
            return False
        self.use_exact(self.quantise_entropy_model())
        return True

    def exact_tensors(self) -> dict[str, Tensor]:
        """The integers of :attr:`exact`."""
        return self.exact.tensors()

    def forget(self) -> None:
        """Drop the integers too."""
        super().forget()
        self._exact = None

    def encode(self, x: Tensor) -> CodedLatents:
        """As in :class:`LearnedCodec`."""
        return self.encode_latents({name: latent[0] for name, latent in self.latents(x).items()})

    def decode(self, side: bytes, y: bytes, size: Size) -> DecodedLatents:
        """As in :class:`LearnedCodec`."""
        latents = self.decode_latents(side, y, size)
        return DecodedLatents(latents, latents)

    def encode_latents(self, latents: Latents) -> CodedLatents:
        """Code the latents of one image, (C, h, w) each, holding integers."""
        recorded = self.exact.record(latents)
        side = pack_segments([recorded[name].encode() for name in self.SIDE])

        def estimate() -> dict[str, float]:
            floats = {name: latent[None].to(self.device, torch.float32) for name, latent in latents.items()}
            return {name: float(bits(value)) for name, value in self.log_likelihoods(floats).items()}

        return CodedLatents(
            side,
            recorded["y"].encode(),
            {name: latent.long().cpu() for name, latent in latents.items()},
            estimate,
            lambda: {name: one.bits() for name, one in recorded.items()},
        )

    def decode_latents(self, side: bytes, y: bytes, size: Size) -> Latents:
        """The latents of one image of the given size, (C, h, w) int64 each, from what :meth:`encode_latents` wrote.

        Raises:
            BitstreamError: the segments are damaged so that they cannot be decoded; other damage goes unnoticed.
        """
        segments = dict(zip(self.SIDE, unpack_segments(side, len(self.SIDE)), strict=True))
        return self.exact.decode({**segments, "y": y}, size)
