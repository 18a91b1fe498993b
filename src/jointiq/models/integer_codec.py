"""Base of the models that code with integer networks (Balle 2019): every probability is integer arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jointiq.bitstream.container import HIGHEST, LOWEST, pack_segments, to_tenths, unpack_segments
from jointiq.entropy_models import ENTROPY_MODELS
from jointiq.entropy_models.base import EntropyModel, IntegerEntropyModel, Latents
from jointiq.entropy_models.integer.self_test import require_exact
from jointiq.errors import ConfigError
from jointiq.layers.gains import TransformGains
from jointiq.layers.padding import Size
from jointiq.models.base import CodedLatents, DecodedLatents, LearnedCodec, compression_output


class IntegerCodec(LearnedCodec):
    """x --> g_a --> y --> entropy model --> y_hat --> g_s --> x_mid --> enhancer --> x_hat.

    Subclasses make the parts in their constructor: ``g_a``, ``g_s``, ``entropy_model`` and ``enhancer``; for all rates
    also ``gain_a`` and ``gain_s``, which multiply features of the two transforms, y before and y_hat after rounding.
    The settings of model and entropy model have one name space, ``model`` in a configuration.

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
    gain_a: TransformGains | None
    gain_s: TransformGains | None

    def __init__(
        self, entropy_model: str | None = None, enhancer: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        super().__init__()
        self.gain_a = self.gain_s = None
        chosen = self.OWN_ENTROPY_MODEL if entropy_model is None else entropy_model
        if chosen != self.OWN_ENTROPY_MODEL and not self.SWAPS_ENTROPY_MODEL:
            raise ConfigError("model.entropy_model", chosen, f"{self.OWN_ENTROPY_MODEL}, with {self.registered_name()}")
        self._entropy_class, settings = ENTROPY_MODELS.get(chosen)
        model_keys, entropy_keys = self.SETTINGS.names(), settings.names()
        for key, value in values.items():
            if key not in model_keys and key not in entropy_keys:
                known = ", ".join([*model_keys, *entropy_keys])
                where = f"{self.registered_name()} with the entropy model {chosen}"
                raise ConfigError(f"model.{key}", value, f"the keys of {where}: {known}")
        self.settings = self.SETTINGS.of(
            {key: values[key] for key in model_keys if key in values}, self.registered_name()
        )
        self.entropy_settings = settings.of({key: values[key] for key in entropy_keys if key in values}, chosen)
        self.config = {
            "name": self.registered_name(),
            **self.settings.as_dict(),
            **self.entropy_settings.as_dict(),
            **({} if chosen == self.OWN_ENTROPY_MODEL else {"entropy_model": chosen}),
            "enhancer": None if enhancer is None else dict(enhancer),
        }

    def build_entropy_model(self, N: int, M: int, levels: int | None = None) -> EntropyModel:
        """Build the entropy model that was chosen, for N channels of the transforms and M of y.

        Args:
            levels: of a model of all rates.

        Raises:
            ConfigError: it has one rate only.
        """
        if levels is None:
            return self._entropy_class(N, M, self.entropy_settings)
        if not self._entropy_class.ALL_RATES:
            raise ConfigError("model.rates", "continuous", "one, with this entropy model")
        build: Any = self._entropy_class
        model: EntropyModel = build(N, M, self.entropy_settings, levels=levels)
        return model

    # ---- networks

    def compression(self, x: Tensor) -> dict[str, Any]:
        size = (x.shape[-2], x.shape[-1])
        if self.quality is None:
            log_likelihoods, y_hat = self.entropy_model(self.analysis(x))
            return compression_output(self.synthesis(y_hat, size), log_likelihoods)
        quality = self.drawn_qualities(x) if self.training else self.qualities(x)
        log_likelihoods, y_hat = self.entropy_model(self.analysis(x, quality), quality)
        return {**compression_output(self.synthesis(y_hat, size, quality), log_likelihoods), "quality": quality}

    def analysis(self, x: Tensor, quality: Tensor | None = None) -> Tensor:
        """Return y (B, M, h, w), float32 and not rounded, of images in [0, 1]."""
        if self.gain_a is None or quality is None:
            y: Tensor = self.g_a(2 * x - 1)
            return y.float()
        y = self.g_a(2 * x - 1, self.gain_a.features(quality))
        return y.float() * self.gain_a.y(quality)

    def synthesis(self, y_hat: Tensor, size: Size, quality: Tensor | None = None) -> Tensor:
        """Return x_mid (B, 3, *size) in [0, 1] scale."""
        if self.gain_s is None or quality is None:
            return to_unit(self.g_s(y_hat, size))
        return to_unit(self.g_s(y_hat * self.gain_s.y(quality), size, self.gain_s.features(quality)))

    def qualities(self, like: Tensor) -> Tensor | None:
        """Return the model's quality for each of a batch, (B,); None: one rate."""
        return None if self.quality is None else torch.full((len(like),), self.quality, device=like.device)

    def drawn_qualities(self, like: Tensor) -> Tensor:
        """Return a random quality for each of a batch, (B,): uniform, as lambda is on a logarithmic scale.

        Each comes from a part of the range of its own, all of the same length. So every step trains both ends, and the
        gradient varies less than that of qualities drawn one by one.
        """
        batch = len(like)
        shares = (torch.randperm(batch, device=like.device) + torch.rand(batch, device=like.device)) / batch
        return LOWEST + (HIGHEST - LOWEST) * shares

    def analyse(self, x: Tensor) -> Latents:
        return self.entropy_model.analyse(self.analysis(x, self.qualities(x)))

    def synthesise(self, latents: Latents, size: Size) -> Tensor:
        return self.synthesis(latents["y"], size, self.qualities(latents["y"]))

    def log_likelihoods(self, latents: Latents) -> Latents:
        if self.quality is None:
            return self.entropy_model.log_likelihoods(latents)
        return self.entropy_model.log_likelihoods(latents, self.qualities(latents["y"]))

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
        """The integer network of the present weights, on the device of the model; derived when first needed.

        Raises:
            UserError: the device does not calculate exactly.
        """
        require_exact(self.device)
        self.update()
        integers: IntegerEntropyModel = self.derived["integers"]
        if integers.device != self.device:
            integers = self.derived["integers"] = integers.to(self.device)
        return integers

    @property
    def coder(self) -> IntegerEntropyModel:
        """The integer network that codes at the model's quality."""
        return self.integers if self.quality is None else self.integers.at(to_tenths(self.quality))

    def update(self, *_args: object, force: bool = False, **_kwargs: object) -> bool:
        """Derive the integer network from the weights; True if that was done (the contract of CompressAI)."""
        if "integers" in self.derived and not force:
            return False
        self.derived.clear()
        self.derived["integers"] = self.entropy_model.integers()
        return True

    def integer_tensors(self) -> dict[str, Tensor]:
        return self.integers.tensors()

    def restore_integers(self, tensors: dict[str, Tensor]) -> None:
        self.derived.clear()
        self.derived["integers"] = self.entropy_model.restore(tensors)

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
        decisions = self.coder.record(latents)
        side = pack_segments([decisions[name].encode() for name in self.side])
        symbols = {name: latent.long().cpu() for name, latent in latents.items()}
        return CodedLatents(side, decisions["y"].encode(), symbols, self, latents, decisions)

    def decode_latents(self, side: bytes, y: bytes, size: Size) -> Latents:
        """Decode the latents of one image of the given size, (C, h, w) int64 each, from :meth:`encode_latents`.

        Raises:
            BitstreamError: the segments are damaged so that they cannot be decoded; other damage goes unnoticed.
        """
        segments = dict(zip(self.side, unpack_segments(side, len(self.side)), strict=True))
        return self.coder.decode({**segments, "y": y}, size)


def to_unit(mid: Tensor) -> Tensor:
    """Return the output of g_s, about [-1, 1], in the scale of images, [0, 1]; never in less than float32."""
    return (mid.to(torch.promote_types(mid.dtype, torch.float32)) + 1) / 2
