"""The interface of entropy models: likelihoods to train with, and the integer network that codes.

Latents travel as dictionaries by name: ``y``, which g_s turns into the picture, and the side information that a decoder
reads before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from jointiq.bitstream.scan import PARALLEL
from jointiq.entropy_models.integer.recorder import Recorder
from jointiq.layers.padding import Size

Latents = dict[str, Tensor]


class IntegerEntropyModel(ABC):
    """The integer network of an entropy model: the probabilities that it codes with are the same on every machine.

    Args:
        tensors: all integers that define it, by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def tensors(self) -> dict[str, Tensor]:
        """Return all integers that define the network, by name."""
        return dict(self._tensors)

    @property
    def device(self) -> torch.device:
        return next(iter(self._tensors.values())).device

    def _moved(self, device: torch.device | str) -> dict[str, Tensor]:
        return {name: tensor.to(device) for name, tensor in self._tensors.items()}

    def to(self, device: torch.device | str) -> Self:
        """Return the same network on ``device``."""
        return type(self)(self._moved(device))

    def at(self, tenths: int) -> Self:
        """Return the network at a quality, of one for all rates."""
        raise NotImplementedError(
            f"{type(self).__name__} codes at one rate: it has no tables that change with a quality"
        )

    @abstractmethod
    def record(self, latents: Mapping[str, Tensor]) -> dict[str, Recorder]:
        """Record the decisions that code each latent of one image, (C, h, w) integers."""

    @abstractmethod
    def decode(self, segments: Mapping[str, bytes], size: Size) -> Latents:
        """Decode the latents, int64 (C, h, w), of an image of the given size from the coded decisions of each.

        Raises:
            BitstreamError: the segments are damaged so that they cannot be decoded.
        """


class EntropyModel(nn.Module, ABC):
    """p(y) and all that belongs to it: hyper transforms, contexts, priors.

    Constructors take ``(N, M, settings)``: channels of the transforms, which the side information has too where its
    paper says so, and of y; and the settings that the class was registered with.

    Attributes:
        side: names of the side information, in the order in which a decoder reads it.
        scan_code: the byte of a file that names the order of coding (:mod:`jointiq.bitstream.scan`).
    """

    #: Whether docs/format.md says what its integers are: a file of a model is then compared with it.
    IN_FORMAT: ClassVar[bool] = False
    #: Its networks that the integers do not stand for: a file of the model holds their weights as floats.
    FLOAT: ClassVar[tuple[str, ...]] = ("h_a",)
    #: Parts that variants of it have in common (``stage.takes=shared``), each with the setting that has to agree.
    SHARED: ClassVar[Mapping[str, str | None]] = {}

    side: tuple[str, ...] = ()
    scan_code: int = PARALLEL
    #: Whether its priors can change with the quality: then ``levels`` may follow the arguments of the constructor.
    ALL_RATES: ClassVar[bool] = False

    @abstractmethod
    def forward(self, y: Tensor, quality: Tensor | None = None) -> tuple[Latents, Tensor]:
        """Evaluate y (B, M, h, w), float32, not rounded; ``quality`` (B,) is given by models of all rates alone.

        Returns:
            Log-likelihoods by latent, in nats, not floored; and y_hat, as g_s is to read it. Rates are those of noisy
            latents in training mode, of rounded ones otherwise.
        """

    @abstractmethod
    def analyse(self, y: Tensor) -> Latents:
        """Return all latents in decoding order, ``y`` last, float32 and not rounded, from y."""

    @abstractmethod
    def log_likelihoods(self, latents: Latents, quality: Tensor | None = None) -> Latents:
        """Return the log-likelihoods, in nats, of rounded latents: the estimate of a file's size."""

    @abstractmethod
    def latent_shape(self, size: Size) -> Size:
        """Return height and width of the deepest latent of an image of ``size``."""

    @abstractmethod
    def integers(self) -> IntegerEntropyModel:
        """Derive the integer network from the weights; the same on every machine."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor]) -> IntegerEntropyModel:
        """Return the integer network that ``tensors`` define, after setting the weights to what they stand for."""
