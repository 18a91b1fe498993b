"""The interface of a codec: all that training, coding to files, evaluation and export know of a model.

A model has one latent ``y``, whose rounded value g_s turns into the picture, and side information ("z", or several
latents, or none) that the decoder reads before it. Latents travel as dictionaries by name, images as (B, 3, H, W) in
[0, 1].
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from jointiq.bitstream.container import TENTHS, pack_varint, require_quality, to_tenths, unpack_varint
from jointiq.entropy_models.base import Latents
from jointiq.entropy_models.integer.recorder import Recorder
from jointiq.errors import BitstreamError, ConfigError, DataError
from jointiq.layers.padding import Size
from jointiq.models.objective import Objective
from jointiq.models.state import StoredModel
from jointiq.runtime import tf32

# Only for the `likelihoods` that are returned; the loss reads the unfloored logarithms.
LIKELIHOOD_FLOOR = 1e-9
# Values of an image in [0, 1] that was scaled may lie a little above 1; these are 8-bit samples.
_FAR_ABOVE_WHITE = 2.0
#: Methods that a training can compile.
COMPILED = ("compression", "enhance")


@dataclass(frozen=True)
class CodedLatents:
    """The two segments of a file, what a decoder reads from them, and their expected cost.

    Attributes:
        side: the side information, all of it.
        y: the rest.
        symbols: the coded integers by name, int64 (C, h, w) on the CPU.
        model: the model that coded them.
        latents: the latents by name as the networks read them, (C, h, w).
        decisions: the coded decisions by name; empty where the coder does not show its probabilities.
    """

    side: bytes
    y: bytes
    symbols: Latents
    model: LearnedCodec
    latents: Latents
    decisions: Mapping[str, Recorder] = field(default_factory=dict)

    def estimate(self) -> dict[str, float]:
        """Return the bits of each latent by the float likelihoods that were trained."""
        floats = {name: latent[None].to(self.model.device, torch.float32) for name, latent in self.latents.items()}
        return {name: float(bits(value)) for name, value in self.model.log_likelihoods(floats).items()}

    def bits(self) -> dict[str, float]:
        """Return the bits of each latent by the coder's own probabilities; empty without decisions."""
        return {name: recorder.bits() for name, recorder in self.decisions.items()}


@dataclass(frozen=True)
class DecodedLatents:
    """The latents that the segments of a file hold.

    Attributes:
        symbols: the coded integers by name, int64 (C, h, w).
        latents: the latents by name as the networks read them, (C, h, w): the integers themselves, or what the entropy
            model (by a mean, for example) makes of them.
    """

    symbols: Latents
    latents: Latents


class LearnedCodec(StoredModel, ABC):
    """An image codec with trained networks, under the contract of CompressAI (``forward``, ``compress``, ...).

    Subclasses carry CompressAI's ``@register_model("name")`` and take their settings, and the ``enhancer``'s
    configuration, as keyword arguments.

    Attributes:
        enhancer: the quality-enhancement network, or None.
    """

    #: Whether images are padded on all sides, and not at the bottom and right only.
    PADS_BOTH_SIDES: ClassVar[bool] = False

    enhancer: nn.Module | None
    #: From 1 (smallest files) to 100, what a model of all rates codes at; None: the model has one rate.
    quality: float | None = None
    #: What it was trained for, where the file that it was read from says so.
    objective: Objective | None = None

    def at(self, quality: float) -> Self:
        """Return this model of all rates at another quality: a view that shares all weights, for coding.

        Raises:
            ConfigError: the model has one rate, or there is no such quality.
        """
        if self.quality is None:
            raise ConfigError("quality", quality, "null: this model has one rate")
        view = copy.copy(self)
        view.quality = require_quality(quality)
        for name in COMPILED:
            view.__dict__.pop(name, None)  # compiled for the quality of the original
        return view

    # ---- networks

    @abstractmethod
    def compression(self, x: Tensor) -> dict[str, Any]:
        """Run the compression network I: all but the enhancer.

        Args:
            x: (B, 3, H, W) in [0, 1], any size from 1x1 up. In training mode a model of all rates draws a quality for
                each.

        Returns:
            ``x_mid``: output of g_s, (B, 3, H, W), float32, [0, 1] scale, not clamped. ``likelihoods``,
            ``log_likelihoods``: of each latent, by name; the first floored at 1e-9, the second not, in nats. Noisy
            latents in training mode, rounded ones otherwise. ``auxiliary``, only from models that need it in training:
            a further loss, scalar, in nats a pixel, which counts as the rate does. ``quality``, only from models of all
            rates: (B,), what each image was coded at.
        """

    def enhance(self, x_mid: Tensor) -> Tensor:
        """Run the enhancer Q, if any, on I's output or crops of it: (B, 3, H, W) in [0, 1] scale, not clamped."""
        return x_mid if self.enhancer is None else (self.enhancer(2 * x_mid - 1) + 1) / 2

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Return what :meth:`compression` does, and ``x_hat``: its ``x_mid``, enhanced.

        Raises:
            DataError: ``x`` is no batch of RGB images.
        """
        _require_batch(x)
        output = self.compression(x)
        return {"x_hat": self.enhance(output["x_mid"]), **output}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the networks of a training step in place, with the arguments of ``torch.compile``."""
        for name in COMPILED:
            # An attribute of the object stands before the method of its class.
            setattr(self, name, torch.compile(getattr(self, name), *args, **kwargs))

    @abstractmethod
    def analyse(self, x: Tensor) -> Latents:
        """Return the latents of images in [0, 1], (B, C, h, w) each, float32, not rounded."""

    @abstractmethod
    def synthesise(self, latents: Latents, size: Size) -> Tensor:
        """Return x_mid, (B, 3, *size) in [0, 1] scale, from all decoded latents."""

    def reconstruct_from(self, latents: Latents, size: Size) -> tuple[Tensor, Tensor]:
        """Return x_hat and x_mid, (B, 3, *size) in [0, 1] scale, not clamped, from all latents."""
        x_mid = self.synthesise(latents, size)
        return self.enhance(x_mid), x_mid

    def reconstruct(self, y_hat: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """Return x_hat and x_mid from y_hat alone."""
        return self.reconstruct_from({"y": y_hat}, size)

    @abstractmethod
    def log_likelihoods(self, latents: Latents) -> Latents:
        """Return float log-likelihoods, in nats, of the latents of :meth:`latents`: the estimate of a file's size."""

    def latents(self, x: Tensor) -> Latents:
        """Return the quantised latents of images in [0, 1], as floats.

        Raises:
            DataError: they are not finite.
        """
        return {name: torch.round(latent) for name, latent in require_finite(self.analyse(x)).items()}

    # ---- coding

    @property
    @abstractmethod
    def side(self) -> tuple[str, ...]:
        """Names of the side information, in the order in which a decoder reads it."""

    @property
    @abstractmethod
    def scan_code(self) -> int:
        """The byte of a file that names the order of coding (:mod:`jointiq.bitstream.scan`)."""

    @abstractmethod
    def latent_shape(self, size: Size) -> Size:
        """Return height and width of the deepest latent of an image."""

    @abstractmethod
    def encode(self, x: Tensor) -> CodedLatents:
        """Code one image in [0, 1], (1, 3, H, W).

        Raises:
            DataError: its latents are not finite.
        """

    @abstractmethod
    def decode(self, side: bytes, y: bytes, size: Size) -> DecodedLatents:
        """Decode the latents of one image of the given size from the segments of :meth:`encode`.

        Raises:
            BitstreamError: the segments are damaged so that they cannot be decoded; other damage goes unnoticed.
        """

    @tf32(allowed=False)
    @torch.inference_mode()
    def compress(self, x: Tensor, quality: float | None = None) -> dict[str, Any]:
        """Code images (B, 3, H, W) in [0, 1]: ``{"strings": [[y of each], [side of each]], "shape": latent size}``.

        A string of the side information begins with the image's true height and width and, in a model of all rates, the
        tenths of its quality (LEB128 each), as the decoder needs them.

        Args:
            quality: from 1 to 100, of a model of all rates; None: :attr:`quality`.

        Raises:
            ConfigError: a quality that the model does not have.
            DataError: ``x`` is no batch of RGB images, or far outside of [0, 1].
        """
        _require_batch(x)
        if x.numel() and float(x.max()) > _FAR_ABOVE_WHITE:
            raise DataError(f"x has values up to {float(x.max()):g}; allowed: [0, 1]; 8-bit samples are divided by 255")
        if quality is not None:
            return self.at(quality).compress(x)
        size = (x.shape[-2], x.shape[-1])
        prefix = pack_varint(size[0]) + pack_varint(size[1])
        if self.quality is not None:
            prefix += pack_varint(to_tenths(self.quality))
        coded = [self.encode(image[None]) for image in x]
        strings = [[one.y for one in coded], [prefix + one.side for one in coded]]
        return {"strings": strings, "shape": torch.Size(self.latent_shape(size))}

    @tf32(allowed=False)
    @torch.inference_mode()
    def decompress(self, strings: list[list[bytes]], shape: Size) -> dict[str, Tensor]:
        """Decode images from :meth:`compress`: ``{"x_hat": (B, 3, H, W)}`` clamped to [0, 1].

        Raises:
            BitstreamError: the strings are damaged so that they cannot be decoded, or ``shape`` is not theirs. Other
                damage goes unnoticed, as the strings carry no checksum; a ``.jiq`` file does.
        """
        pictures: list[Tensor] = []
        size = previous = (0, 0)
        for y, side in zip(*strings, strict=True):
            height, position = unpack_varint(side, 0)
            width, position = unpack_varint(side, position)
            size = (height, width)
            if pictures and size != previous:
                raise BitstreamError(f"the strings of a batch hold images of different sizes, {previous} and {size}")
            previous = size
            if tuple(self.latent_shape(size)) != tuple(shape):
                raise BitstreamError(f"the strings hold latents of size {self.latent_shape(size)}, not {tuple(shape)}")
            model = self
            if self.quality is not None:
                tenths, position = unpack_varint(side, position)
                model = self.at_tenths(tenths)
            latents = model.decode(side[position:], y, size).latents
            x_hat, _ = model.reconstruct_from({name: self.to_float(one[None]) for name, one in latents.items()}, size)
            pictures.append(x_hat)
        return {"x_hat": torch.cat(pictures).clamp(0, 1)}

    def at_tenths(self, tenths: int | None) -> Self:
        """Return the model that decodes a file of a quality in tenths; None: a file of one rate.

        Raises:
            BitstreamError: the model has no such quality.
        """
        if tenths is None:
            if self.quality is None:
                return self
            raise BitstreamError("the file names the quality none, which its model does not have")
        quality = tenths / TENTHS
        try:
            return self.at(quality)
        except ConfigError as error:
            raise BitstreamError(f"the file names the quality {quality:g}, which its model does not have") from error

    def to_float(self, latent: Tensor) -> Tensor:
        """Return a decoded latent in the precision of the networks."""
        return latent.to(next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point()))

    def update(self, *_args: Any, force: bool = False, **_kwargs: Any) -> bool:
        """Derive what coding needs from the weights; True if that was done (the contract of CompressAI)."""
        return False

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def aux_loss(self) -> Tensor:
        """Return CompressAI's auxiliary loss; zero for models without quantiles."""
        return torch.zeros((), device=self.device)


def compression_output(x_mid: Tensor, log_likelihoods: Latents) -> dict[str, Any]:
    """Return the dictionary of :meth:`LearnedCodec.compression`."""
    return {
        "x_mid": x_mid,
        "likelihoods": {key: value.exp().clamp(min=LIKELIHOOD_FLOOR) for key, value in log_likelihoods.items()},
        "log_likelihoods": log_likelihoods,
    }


def require_finite(latents: Latents) -> Latents:
    """Return the latents, checked.

    Raises:
        DataError: they are not finite.
    """
    if not all(bool(torch.isfinite(latent).all()) for latent in latents.values()):
        raise DataError("the model gives no finite latents for this image; its weights are damaged or diverged")
    return latents


def _require_batch(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3:
        raise DataError(f"x has the shape {tuple(x.shape)}; allowed: (B, 3, H, W); one image is x[None]")


def bits(log_likelihoods: Tensor) -> Tensor:
    """Return the total bits of log-likelihoods in nats."""
    return -log_likelihoods.sum() / math.log(2)
