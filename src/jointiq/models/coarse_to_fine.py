"""The coarse-to-fine hyperprior with information aggregation.

Hu, Yang, Liu: "Coarse-to-Fine Hyper-Prior Modeling for Learned Image Compression", AAAI 2020; Hu, Yang, Ma, Liu:
"Learning End-to-End Lossy Image Compression: A Benchmark", 2021. Widths and kernels are those of the authors' code.

    x --> g_a --> y --> entropy model --> y_hat --> g_s without its last layer --> aggregation --> x_mid --> Q --> x_hat
                             |                                                      ^
                             +------- h_s1, h_s2: features that predict h2 and y ---+
                        (jointiq.entropy_models.coarse_to_fine)

All positions of a latent are coded in parallel: a prediction reads the latent above alone. Images are [0, 1] at the API
and [-1, 1] in the networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from compressai.registry import register_model
from torch import Tensor, nn

from jointiq.enhancers import build_enhancer
from jointiq.entropy_models.base import Latents
from jointiq.entropy_models.coarse_to_fine import CoarseToFineEntropyModel, CoarseToFineSettings
from jointiq.errors import ConfigError
from jointiq.layers.aggregation import Aggregation, SynthesisFeatures
from jointiq.layers.padding import Size
from jointiq.layers.transforms import AnalysisTransform, SynthesisTransform
from jointiq.models.base import compression_output
from jointiq.models.integer_codec import IntegerCodec, to_unit
from jointiq.parts import Settings, at_least, checked

_WITH_H1, _WITH_AGGREGATION, _WITHOUT_HEADS = 2, 3, 4


def _weight(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(key, value, "a number from 0 up")


@dataclass(frozen=True)
class CoarseToFineNetSettings(Settings):
    """Settings of :class:`CoarseToFine`, beside those of its entropy model.

    Attributes:
        N, M: channels of the transforms and of y; equal in the authors' code, 192 or 384.
        helper_weight: weight of the heads' squared errors, in nats a pixel (the authors have 1 bit; our choice).
    """

    N: int = at_least(1)
    M: int = at_least(3)
    helper_weight: float = checked(_weight, default=1.0, training=True)


@register_model("coarse_to_fine")
class CoarseToFine(IntegerCodec):
    """The coarse-to-fine model, or the parts of it that a phase of its training has."""

    SETTINGS = CoarseToFineNetSettings
    DECODER = ("g_s", "h_s1", "h_s2", "aggregation", "enhancer")
    OWN_ENTROPY_MODEL = "coarse_to_fine"
    # The aggregation reads its features too.
    SWAPS_ENTROPY_MODEL = False

    settings: CoarseToFineNetSettings
    entropy_settings: CoarseToFineSettings
    entropy_model: CoarseToFineEntropyModel

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        N, M = self.settings.N, self.settings.M
        h2, phase = self.entropy_settings.h2, self.entropy_settings.phase
        aggregates, has_heads = phase >= _WITH_AGGREGATION, phase < _WITHOUT_HEADS

        self.g_a = AnalysisTransform(N, M)
        self.g_s = SynthesisFeatures(N, M) if aggregates else SynthesisTransform(N, M)
        self.entropy_model = CoarseToFineEntropyModel(N, M, self.entropy_settings)
        self.aggregation = Aggregation(N, M, h2) if aggregates else None
        self.head_y = nn.Conv2d(M, M, 3, padding=1) if has_heads else None
        self.head_h2 = nn.Conv2d(h2, h2, 3, padding=1) if has_heads and phase >= _WITH_H1 else None
        self.enhancer = build_enhancer(self.config["enhancer"])
        self.to(memory_format=torch.channels_last)

    def compression(self, x: Tensor) -> dict[str, Any]:
        latents = self.analyse(x)
        log_likelihoods, rounded, features = self.entropy_model.evaluate(latents)
        x_mid = self._picture(rounded["y"], features, (x.shape[-2], x.shape[-1]))
        result = compression_output(x_mid, log_likelihoods)
        if self.training and self.head_y is not None:
            result["auxiliary"] = self._helper_loss(latents, features)
        return result

    def _helper_loss(self, latents: Latents, features: Latents) -> Tensor:
        """Return the loss of the heads, which predict the latents themselves from the features (phases 1 to 3)."""
        heads = {"y": self.head_y, "h2": self.head_h2}
        errors = [
            F.mse_loss(head(features[name]).float(), latents[name].detach())
            for name, head in heads.items()
            if head is not None
        ]
        return self.settings.helper_weight * torch.stack(errors).sum()

    def _picture(self, y_hat: Tensor, features: Latents, size: Size) -> Tensor:
        mid = self.g_s(y_hat, size)
        return to_unit(mid if self.aggregation is None else self.aggregation(mid, features["y"], features["h2"], size))

    def synthesise(self, latents: Latents, size: Size) -> Tensor:
        features = {} if self.aggregation is None else self.entropy_model.features(latents)
        return self._picture(latents["y"], features, size)

    def reconstruct(self, y_hat: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """Return x_hat and x_mid, with the side information that an encoder derives from y_hat."""
        latents = {name: torch.round(latent) for name, latent in self.entropy_model.analyse(y_hat).items()}
        return self.reconstruct_from(latents, size)
