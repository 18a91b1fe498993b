"""What the framework asks of a model: training, coding to files, evaluation and export know nothing else of it.

A model has one latent ``y``, whose rounded value g_s turns into the picture, and side information ("z", or several
latents, or none) that the decoder reads before it. Latents travel as dictionaries by name, images as (B, 3, H, W) in
[0, 1].
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from compressai.models import CompressionModel
from torch import Tensor, nn

from jointiq.bitstream.container import pack_varint, unpack_varint
from jointiq.errors import BitstreamError, ConfigError, DataError
from jointiq.layers.padding import Size

# Only for the `likelihoods` that are returned; the loss reads the unfloored logarithms.
LIKELIHOOD_FLOOR = 1e-9

Latents = dict[str, Tensor]
#: What the enhancer is to see of x_mid, where that is not all of it.
Cut = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CodedLatents:
    """The two segments of a file, what a decoder finds in them, and what they should cost.

    Attributes:
        side: the side information, all of it.
        y: the rest.
        symbols: the coded integers by name, int64 (C, h, w) on the CPU.
        estimate: bits by latent, by the float likelihoods of the training. To be called only if wanted.
        bits: bits by latent with an ideal coder, by the coder's own probabilities; empty where those cannot be seen.
            To be called only if wanted.
    """

    side: bytes
    y: bytes
    symbols: Latents
    estimate: Callable[[], dict[str, float]]
    bits: Callable[[], dict[str, float]]


@dataclass(frozen=True)
class DecodedLatents:
    """What the segments of a file hold.

    Attributes:
        symbols: the coded integers by name, int64 (C, h, w).
        latents: the latents by name as the networks read them, (C, h, w): the integers themselves, or what the entropy
            model (by a mean, for example) makes of them.
    """

    symbols: Latents
    latents: Latents


class LearnedCodec(CompressionModel, ABC):
    """An image codec with trained networks, under the contract of CompressAI (``forward``, ``compress``, ...).

    Attributes:
        config: ``name`` and the arguments of the constructor, as JSON could hold them.
        enhancer: the quality-enhancement network, or None.
        cached_fingerprint: see :mod:`jointiq.coding.fingerprint`.
    """

    #: Side information, in the order in which a decoder reads it.
    SIDE: tuple[str, ...] = ("z",)
    #: Weights that a file of the model holds as floats (an export).
    FLOAT_PARTS: ClassVar[tuple[str, ...]] = ("g_a.", "g_s.", "h_a.", "enhancer.")
    #: Those of them that a decoder reads, and that make the model's identity.
    DECODER_PARTS: ClassVar[tuple[str, ...]] = ("g_s.", "enhancer.")
    #: Settings that differ between the stages of a training: ``init_from=`` takes what the parts of both share.
    STAGED: ClassVar[tuple[str, ...]] = ()
    #: Settings that change how the entropy model works, but no tensor's shape.
    SHAPELESS: ClassVar[tuple[str, ...]] = ()
    #: Whether images are padded on both sides of a direction, half and half, and not at its end.
    PADS_BOTH_SIDES: ClassVar[bool] = False

    config: dict[str, Any]
    enhancer: nn.Module | None
    cached_fingerprint: bytes | None

    # ---- networks

    @abstractmethod
    def forward(self, x: Tensor, cut: Cut | None = None) -> dict[str, Any]:
        """Reconstruct and estimate the rate.

        Args:
            x: (B, 3, H, W) in [0, 1], any size from 1x1 up.
            cut: what the enhancer is to see of x_mid (a training on crops); None: all.

        Returns:
            ``x_hat``, ``x_mid``: output of the enhancer and of g_s, (B, 3, H, W), [0, 1] scale, not clamped; x_hat of
            the cut. ``likelihoods``, ``log_likelihoods``: of each latent, by name; the first floored at 1e-9, the
            second not, in nats. Noisy latents in training mode, rounded ones otherwise. ``auxiliary``, only from
            models that need it in training: a further loss, scalar, in nats a pixel, which counts as the rate does.
        """

    @abstractmethod
    def analyse(self, x: Tensor) -> Latents:
        """Latents of images in [0, 1], (B, C, h, w) each, float32, not rounded."""

    @abstractmethod
    def reconstruct(self, y_hat: Tensor, size: Size, cut: Cut | None = None) -> tuple[Tensor, Tensor]:
        """x_hat (of the ``cut`` of x_mid, where one is given) and x_mid, (B, 3, *size) in [0, 1] scale, not clamped."""

    def reconstruct_from(self, latents: Latents, size: Size, cut: Cut | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`reconstruct`, from all rounded latents, which a decoder has: for pictures that side information
        takes part in.
        """
        return self.reconstruct(latents["y"], size, cut)

    def enhanced(self, mid: Tensor, cut: Cut | None) -> tuple[Tensor, Tensor]:
        """What :meth:`reconstruct` returns, from g_s's output ``mid``, (B, 3, H, W), about [-1, 1]."""
        seen = mid if cut is None else cut(mid)
        out = seen if self.enhancer is None else self.enhancer(seen)
        return (out + 1) / 2, (mid + 1) / 2

    @abstractmethod
    def log_likelihoods(self, latents: Latents) -> Latents:
        """Float log-likelihoods, in nats, of the latents of :meth:`latents`: what a file's size is held against."""

    def latents(self, x: Tensor) -> Latents:
        """The latents of images in [0, 1] as everything but the coder reads them: quantised, (B, C, h, w) floats.

        Raises:
            DataError: they are not finite.
        """
        return {name: torch.round(latent) for name, latent in require_finite(self.analyse(x)).items()}

    # ---- coding

    @property
    @abstractmethod
    def scan_code(self) -> int:
        """The byte of a file that names the order of coding (:mod:`jointiq.bitstream.scan`)."""

    @abstractmethod
    def latent_shape(self, size: Size) -> Size:
        """Height and width of the deepest latent of an image."""

    @abstractmethod
    def encode(self, x: Tensor) -> CodedLatents:
        """Code one image in [0, 1], (1, 3, H, W).

        Raises:
            DataError: its latents are not finite.
        """

    @abstractmethod
    def decode(self, side: bytes, y: bytes, size: Size) -> DecodedLatents:
        """The latents of one image of the given size from the segments of :meth:`encode`.

        Raises:
            BitstreamError: the segments are damaged so that they cannot be decoded; other damage goes unnoticed.
        """

    @torch.inference_mode()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """Code images (B, 3, H, W) in [0, 1]: ``{"strings": [[y of each], [side of each]], "shape": latent size}``.

        A string of the side information begins with the image's true height and width (LEB128 each), as the decoder
        needs them.
        """
        size = (x.shape[-2], x.shape[-1])
        prefix = pack_varint(size[0]) + pack_varint(size[1])
        coded = [self.encode(image[None]) for image in x]
        strings = [[one.y for one in coded], [prefix + one.side for one in coded]]
        return {"strings": strings, "shape": torch.Size(self.latent_shape(size))}

    @torch.inference_mode()
    def decompress(self, strings: list[list[bytes]], shape: Size) -> dict[str, Tensor]:
        """Images from :meth:`compress`: ``{"x_hat": (B, 3, H, W)}`` clamped to [0, 1].

        Raises:
            BitstreamError: the strings are damaged so that they cannot be decoded, or ``shape`` is not theirs. Other
                damage goes unnoticed, as the strings carry no checksum; a ``.jiq`` file does.
        """
        decoded: list[Latents] = []
        size = first = (0, 0)
        for y, side in zip(*strings, strict=True):
            height, position = unpack_varint(side, 0)
            width, position = unpack_varint(side, position)
            size = (height, width)
            if decoded and size != first:
                raise BitstreamError(f"the strings of a batch hold images of different sizes, {first} and {size}")
            first = size
            if tuple(self.latent_shape(size)) != tuple(shape):
                raise BitstreamError(f"the strings hold latents of size {self.latent_shape(size)}, not {tuple(shape)}")
            decoded.append(self.decode(side[position:], y, size).latents)
        latents = {name: self.to_float(torch.stack([one[name] for one in decoded])) for name in decoded[0]}
        x_hat, _ = self.reconstruct_from(latents, size)
        return {"x_hat": x_hat.clamp(0, 1)}

    def to_float(self, latent: Tensor) -> Tensor:
        """A decoded latent in the precision of the networks."""
        return latent.to(next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point()))

    def update(self, *_args: Any, force: bool = False, **_kwargs: Any) -> bool:
        """Make what coding needs from the weights; True if there was anything to do (the contract of CompressAI)."""
        return False

    # ---- identity and files

    def exact_tensors(self) -> dict[str, Tensor]:
        """Integers that define the entropy model, by name; empty where the coder works on floats."""
        return {}

    def restore_exact(self, tensors: dict[str, Tensor]) -> None:
        """Take over the integers of :meth:`exact_tensors`, and set the float twin to what they stand for."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def aux_loss(self) -> Tensor:
        """CompressAI's auxiliary loss; zero for models without its quantiles."""
        return torch.zeros((), device=self.device)

    def forget(self) -> None:
        """Drop everything that was derived from the weights, because they change."""
        self.cached_fingerprint = None

    def train(self, mode: bool = True) -> Self:
        """As in ``nn.Module``; weights about to change invalidate what was derived from them."""
        if mode:
            self.forget()
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> Any:
        """As in ``nn.Module``."""
        self.forget()
        return super().load_state_dict(state_dict, strict=strict)

    def get_extra_state(self) -> Tensor:
        """The configuration as bytes of JSON, so that a state dict says what it is the state of."""
        return torch.frombuffer(bytearray(json.dumps(self.config).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse a state whose entropy model works differently although its tensors have the same shapes."""
        # Also reached when weights are loaded through a parent module, which passes load_state_dict by.
        self.forget()
        stored = json.loads(bytes(state.tolist()))
        for key in self.SHAPELESS:
            if stored[key] != self.config[key]:
                raise ConfigError(f"model.{key}", self.config[key], f"{stored[key]!r}, as in the checkpoint")

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> Self:
        """The model that a state dict belongs to, with its weights (the contract of CompressAI)."""
        config = json.loads(bytes(state_dict["_extra_state"].tolist()))
        del config["name"]
        model = cls(**config)
        model.load_state_dict(state_dict)
        return model


def output(x_hat: Tensor, x_mid: Tensor, log_likelihoods: Latents) -> dict[str, Any]:
    """What :meth:`LearnedCodec.forward` returns."""
    return {
        "x_hat": x_hat,
        "x_mid": x_mid,
        "likelihoods": {key: value.exp().clamp(min=LIKELIHOOD_FLOOR) for key, value in log_likelihoods.items()},
        "log_likelihoods": log_likelihoods,
    }


def require_finite(latents: Latents) -> Latents:
    """The latents themselves.

    Raises:
        DataError: they are not finite.
    """
    if not all(bool(torch.isfinite(latent).all()) for latent in latents.values()):
        raise DataError("the model gives no finite latents for this image; its weights are damaged or diverged")
    return latents


def bits(log_likelihoods: Tensor) -> Tensor:
    """Total bits of log-likelihoods in nats."""
    return -log_likelihoods.sum() / math.log(2)


def pack_segments(segments: list[bytes]) -> bytes:
    """Several byte strings as one: the lengths of all but the last (LEB128 each), then all of them."""
    return b"".join(pack_varint(len(segment)) for segment in segments[:-1]) + b"".join(segments)


def unpack_segments(data: bytes, count: int) -> list[bytes]:
    """The ``count`` strings of :func:`pack_segments`.

    Raises:
        BitstreamError: the lengths do not fit the data.
    """
    if count == 0:
        if data:
            raise BitstreamError("the file holds side information that its model does not have")
        return []
    lengths, position = [], 0
    for _ in range(count - 1):
        length, position = unpack_varint(data, position)
        lengths.append(length)
    lengths.append(len(data) - position - sum(lengths))
    if lengths[-1] < 0:
        raise BitstreamError("the lengths of the side information do not add up")
    segments = []
    for length in lengths:
        segments.append(data[position : position + length])
        position += length
    return segments
