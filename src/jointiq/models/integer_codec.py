"""Base of the models that code with integer networks (Balle 2019): every probability is integer arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jointiq.bitstream.container import pack_segments, unpack_segments
from jointiq.entropy_models import ENTROPY_MODELS
from jointiq.entropy_models.base import EntropyModel, IntegerEntropyModel, Latents
from jointiq.errors import ConfigError
from jointiq.layers.padding import Size
from jointiq.models.base import CodedLatents, DecodedLatents, LearnedCodec, compressed


class IntegerCodec(LearnedCodec):
    """x --> g_a --> y --> entropy model --> y_hat --> g_s --> x_mid --> enhancer --> x_hat.

    Subclasses make the parts in their constructor: ``g_a``, ``g_s``, ``entropy_model`` and ``enhancer``. The settings
    of model and entropy model have one name space, ``model`` in a configuration.

    Args:
        entropy_model: registered name; None: the model's own.
        enhancer: config of Q (see :func:`jointiq.enhancers.build_enhancer`); None leaves Q out.
        values: settings of the model and of its entropy model.

    Raises:
        ConfigError: an unknown or missing key, or a value that is not allowed.

    Attributes:
        entropy_settings: of the entropy model, checked.
    """

    #: The entropy model of the paper, by its registered name.
    OWN_ENTROPY_MODEL: ClassVar[str]
    #: Whether it can be replaced.
    SWAPS_ENTROPY_MODEL: ClassVar[bool] = True

    g_a: nn.Module
    g_s: nn.Module
    entropy_model: EntropyModel
    _integers: IntegerEntropyModel | None

    def __init__(
        self, entropy_model: str | None = None, enhancer: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        super().__init__()
        self.forget()
        chosen = self.OWN_ENTROPY_MODEL if entropy_model is None else entropy_model
        if chosen != self.OWN_ENTROPY_MODEL and not self.SWAPS_ENTROPY_MODEL:
            raise ConfigError("model.entropy_model", chosen, f"{self.OWN_ENTROPY_MODEL}, with {self.registered_name()}")
        self._entropy_class, settings = ENTROPY_MODELS.get(chosen)
        ours, theirs = self.SETTINGS.names(), settings.names()
        for key, value in values.items():
            if key not in ours and key not in theirs:
                known = ", ".join([*ours, *theirs])
                where = f"{self.registered_name()} with the entropy model {chosen}"
                raise ConfigError(f"model.{key}", value, f"the keys of {where}: {known}")
        self.settings = self.SETTINGS.of({key: values[key] for key in ours if key in values}, self.registered_name())
        self.entropy_settings = settings.of({key: values[key] for key in theirs if key in values}, chosen)
        self.config = {
            "name": self.registered_name(),
            **self.settings.as_dict(),
            **self.entropy_settings.as_dict(),
            **({} if chosen == self.OWN_ENTROPY_MODEL else {"entropy_model": chosen}),
            "enhancer": None if enhancer is None else dict(enhancer),
        }

    def build_entropy_model(self, N: int, M: int) -> EntropyModel:
        """Build the entropy model that was chosen, for N channels of the transforms and M of y."""
        return self._entropy_class(N, M, self.entropy_settings)

    # ---- networks

    def compression(self, x: Tensor) -> dict[str, Any]:
        log_likelihoods, y_hat = self.entropy_model(self.g_a(2 * x - 1).float())
        return compressed(self.synthesise({"y": y_hat}, (x.shape[-2], x.shape[-1])), log_likelihoods)

    def analyse(self, x: Tensor) -> Latents:
        return self.entropy_model.analyse(self.g_a(2 * x - 1).float())

    def synthesise(self, latents: Latents, size: Size) -> Tensor:
        return to_unit(self.g_s(latents["y"], size))

    def log_likelihoods(self, latents: Latents) -> Latents:
        return self.entropy_model.log_likelihoods(latents)

    # ---- coding

    @property
    def side(self) -> tuple[str, ...]:
        return self.entropy_model.side

    @property
    def scan_code(self) -> int:
        return self.entropy_model.scan_code

    def latent_shape(self, size: Size) -> Size:
        return self.entropy_model.latent_shape(size)

    @property
    def integers(self) -> IntegerEntropyModel:
        """The integer network of the present weights, on the device of the model; derived when first needed."""
        if self._integers is None:
            self.update()
        assert self._integers is not None
        if self._integers.device != self.device:
            self._integers = self._integers.to(self.device)
        return self._integers

    def update(self, *_args: object, force: bool = False, **_kwargs: object) -> bool:
        """Derive the integer network from the weights; True if that was done (the contract of CompressAI)."""
        if self._integers is not None and not force:
            return False
        self._integers = self.entropy_model.integers()
        self.cached_fingerprint = None
        return True

    def integer_tensors(self) -> dict[str, Tensor]:
        return self.integers.tensors()

    def restore_integers(self, tensors: dict[str, Tensor]) -> None:
        self._integers = self.entropy_model.restore(tensors)
        self.cached_fingerprint = None

    def forget(self) -> None:
        """Drop the integers too."""
        super().forget()
        self._integers = None

    def staged(self) -> list[str]:
        return [*super().staged(), *self.entropy_settings.names("staged")]

    def shapeless(self) -> list[str]:
        return [*super().shapeless(), *self.entropy_settings.names("shapeless"), "entropy_model"]

    def encode(self, x: Tensor) -> CodedLatents:
        return self.encode_latents({name: latent[0] for name, latent in self.latents(x).items()})

    def decode(self, side: bytes, y: bytes, size: Size) -> DecodedLatents:
        latents = self.decode_latents(side, y, size)
        return DecodedLatents(latents, latents)

    def encode_latents(self, latents: Latents) -> CodedLatents:
        """Code the latents of one image, (C, h, w) each, holding integers."""
        decisions = self.integers.record(latents)
        side = pack_segments([decisions[name].encode() for name in self.side])
        symbols = {name: latent.long().cpu() for name, latent in latents.items()}
        return CodedLatents(side, decisions["y"].encode(), symbols, self, latents, decisions)

    def decode_latents(self, side: bytes, y: bytes, size: Size) -> Latents:
        """Decode the latents of one image of the given size, (C, h, w) int64 each, from :meth:`encode_latents`.

        Raises:
            BitstreamError: the segments are damaged so that they cannot be decoded; other damage goes unnoticed.
        """
        segments = dict(zip(self.side, unpack_segments(side, len(self.side)), strict=True))
        return self.integers.decode({**segments, "y": y}, size)


def to_unit(mid: Tensor) -> Tensor:
    """Return the output of g_s, about [-1, 1], in the scale of images, [0, 1]; never in less than float32."""
    return (mid.to(torch.promote_types(mid.dtype, torch.float32)) + 1) / 2
