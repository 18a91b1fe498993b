"""The coarse-to-fine hyperprior with information aggregation.

Hu, Yang, Liu: "Coarse-to-Fine Hyper-Prior Modeling for Learned Image Compression", AAAI 2020; Hu, Yang, Ma, Liu:
"Learning End-to-End Lossy Image Compression: A Benchmark", 2021. Widths and kernels are those of the authors' code.

    x --> g_a --> y --> round --> y_hat --> g_s without its last layer -------> aggregation --> x_mid (--> Q) --> x_hat
                                    |                                              ^    ^
                                    +--> h_a2 --> h2 --> h2_hat --> h_s2 ----------+    |
                                                           |         +--> 5x5 --> p(y)  |
                                                           |                            |
                                                           +--> h_a1 --> h1_hat --> h_s1+
                                                                            |        +--> 5x5 --> p(h2)
                                                                     p(h1): zero-mean Gaussian a channel

y is at 1/16 of the resolution, h2 at 1/32, h1 at 1/64. All positions of a latent are coded in parallel: a prediction
reads the latent above alone. Images are [0, 1] at the API and [-1, 1] in the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from compressai.registry import register_model
from torch import Tensor, nn

from jointiq.bitstream.scan import PARALLEL
from jointiq.enhancers import build_enhancer
from jointiq.entropy_models.gaussian_mixture import log_likelihood
from jointiq.entropy_models.integer.coarse_to_fine import LEVELS, NETWORKS, ExactCoarseToFine, restore_coarse_to_fine
from jointiq.entropy_models.zero_mean_gaussian import ZeroMeanGaussian
from jointiq.errors import ConfigError
from jointiq.layers.aggregation import Aggregation, SynthesisFeatures
from jointiq.layers.hyper_space_to_depth import DepthToSpaceSynthesis, SpaceToDepthAnalysis
from jointiq.layers.neighbourhood import NeighbourhoodPredictor
from jointiq.layers.padding import Size, pyramid
from jointiq.layers.quantize import add_uniform_noise, round_ste
from jointiq.layers.transforms import AnalysisTransform, SynthesisTransform
from jointiq.models.base import Cut, Latents, output
from jointiq.models.exact_codec import ExactCodec

#: Stages of the training: g_a, g_s and h2; with h1; with the aggregation; all of it, without the helping heads.
PHASES = (1, 2, 3, 4)
_WITH_H1, _WITH_AGGREGATION, _WITHOUT_HEADS = 2, 3, 4


@register_model("coarse_to_fine")
class CoarseToFine(ExactCodec):
    """The coarse-to-fine model, or what there is of it in a phase of its training.

    Args:
        N, M: channels of the transforms and of y; equal in the authors' code, 192 or 384.
        h2, h1: channels of the hyper latents; 256 and 128 in the authors' code.
        phase: stage of the training. Only what it uses is instantiated; 4 is the finished model.
        enhancer: config of Q (see :func:`jointiq.enhancers.build_enhancer`); None leaves Q out.
        helper_weight: of the squared errors of the helping heads, in nats a pixel (the authors have 1 bit; our choice).
            Not part of ``config``: a trained model works the same.

    Raises:
        ConfigError: a value that is not allowed.
    """

    FLOAT_PARTS = ("g_a.", "g_s.", "h_a1.", "h_a2.", "h_s1.", "h_s2.", "aggregation.", "head_", "enhancer.")
    DECODER_PARTS = ("g_s.", "h_s1.", "h_s2.", "aggregation.", "enhancer.")
    STAGED = ("phase",)

    def __init__(
        self,
        N: int,
        M: int,
        h2: int = 256,
        h1: int = 128,
        phase: int = 4,
        enhancer: Mapping[str, Any] | None = None,
        helper_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.forget()
        for key, (value, smallest) in {"N": (N, 1), "M": (M, 3), "h2": (h2, 4), "h1": (h1, 1)}.items():
            if not isinstance(value, int) or value < smallest:
                raise ConfigError(f"model.{key}", value, f"a whole number from {smallest} up")
        if h2 % 4:
            raise ConfigError("model.h2", h2, "a multiple of 4, because depth-to-space makes it a quarter of them")
        if phase not in PHASES:
            raise ConfigError("model.phase", phase, PHASES)
        if not helper_weight >= 0:
            raise ConfigError("model.helper_weight", helper_weight, "a number from 0 up")
        self.config = {
            "name": "coarse_to_fine",
            "N": N,
            "M": M,
            "h2": h2,
            "h1": h1,
            "phase": phase,
            "enhancer": None if enhancer is None else dict(enhancer),
        }
        self.helper_weight = helper_weight
        with_h1 = phase >= _WITH_H1
        self.SIDE = ("h1", "h2") if with_h1 else ("h2",)
        # In the authors' code the widths around h1 are these parts of 192 or 384.
        third = M // 3

        self.g_a = AnalysisTransform(N, M)
        self.g_s = SynthesisFeatures(N, M) if phase >= _WITH_AGGREGATION else SynthesisTransform(N, M)
        self.h_a2 = SpaceToDepthAnalysis(M, 2 * M, 4 * M, h2)
        self.h_s2 = DepthToSpaceSynthesis(h2, 4 * M, M)
        self.predict_y = NeighbourhoodPredictor(M)
        self.h_a1 = SpaceToDepthAnalysis(h2, 4 * third, 2 * third, h1) if with_h1 else None
        self.h_s1 = DepthToSpaceSynthesis(h1, 4 * third, h2) if with_h1 else None
        self.predict_h2 = NeighbourhoodPredictor(h2) if with_h1 else None
        self.h1_prior = ZeroMeanGaussian(h1) if with_h1 else None
        self.h2_prior = None if with_h1 else ZeroMeanGaussian(h2)
        self.aggregation = Aggregation(N, M, h2) if phase >= _WITH_AGGREGATION else None
        heads = phase < _WITHOUT_HEADS
        self.head_y = nn.Conv2d(M, M, 3, padding=1) if heads else None
        self.head_h2 = nn.Conv2d(h2, h2, 3, padding=1) if heads and with_h1 else None
        self.enhancer = build_enhancer(enhancer)
        # The layout in which convolutions run a third faster on CPUs, and fastest on tensor cores.
        self.to(memory_format=torch.channels_last)

    def prior(self, name: str) -> ZeroMeanGaussian:
        """The prior of the deepest latent, ``h1`` or ``h2``."""
        prior = self.h1_prior if name == "h1" else self.h2_prior
        assert prior is not None
        return prior

    def networks(self, name: str) -> tuple[DepthToSpaceSynthesis, NeighbourhoodPredictor]:
        """What predicts the latent ``name``: the synthesis of the latent above it, and the predictor."""
        synthesis, predictor = (getattr(self, part) for part in NETWORKS[name])
        return synthesis, predictor

    def forward(self, x: Tensor, cut: Cut | None = None) -> dict[str, Any]:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        latents = self._analyse(self.g_a(2 * x - 1).float())
        rounded = {name: round_ste(latent) for name, latent in latents.items()}
        coded = {name: add_uniform_noise(latent) for name, latent in latents.items()} if self.training else rounded
        features = self._synthesise(rounded)
        x_hat, x_mid = self._picture(rounded["y"], features, (x.shape[-2], x.shape[-1]), cut)
        result = output(x_hat, x_mid, self._log_likelihoods(coded, features))
        if self.training and self.head_y is not None:
            result["auxiliary"] = self._helper_loss(latents, features)
        return result

    def _analyse(self, y: Tensor) -> Latents:
        """All latents in decoding order, not rounded, from y; each is made from the rounded one below it."""
        h2 = self.h_a2(round_ste(y)).float()
        if self.h_a1 is None:
            return {"h2": h2, "y": y}
        return {"h1": self.h_a1(round_ste(h2)).float(), "h2": h2, "y": y}

    def _synthesise(self, rounded: Latents) -> Latents:
        """The features that predict a latent, by its name: the hyper synthesis of the rounded latent above it."""
        names = (*self.SIDE, "y")
        return {
            name: self.networks(name)[0](rounded[above], (rounded[name].shape[-2], rounded[name].shape[-1]))
            for above, name in zip(names, names[1:], strict=False)
        }

    def _log_likelihoods(self, coded: Latents, features: Latents) -> Latents:
        """In nats, of latents with or without noise."""
        deepest, *rest = (*self.SIDE, "y")
        predicted = {name: self.networks(name)[1](features[name]) for name in rest}
        of_rest = {name: log_likelihood(coded[name], parameters, G=1) for name, parameters in predicted.items()}
        return {deepest: self.prior(deepest)(coded[deepest]), **of_rest}

    def _helper_loss(self, latents: Latents, features: Latents) -> Tensor:
        """Squared errors of the heads that are to find the latents in the features which predict them."""
        heads = {"y": self.head_y, "h2": self.head_h2}
        errors = [
            F.mse_loss(head(features[name]).float(), latents[name].detach())
            for name, head in heads.items()
            if head is not None
        ]
        return self.helper_weight * torch.stack(errors).sum()

    def _picture(self, y_hat: Tensor, features: Latents, size: Size, cut: Cut | None) -> tuple[Tensor, Tensor]:
        mid = self.g_s(y_hat, size)
        if self.aggregation is not None:
            mid = self.aggregation(mid, features["y"], features["h2"], size)
        return self.enhanced(mid, cut)

    def analyse(self, x: Tensor) -> Latents:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        return self._analyse(self.g_a(2 * x - 1).float())

    def reconstruct_from(self, latents: Latents, size: Size, cut: Cut | None = None) -> tuple[Tensor, Tensor]:
        """As in :class:`jointiq.models.base.LearnedCodec`; the aggregation reads the side information."""
        features = {} if self.aggregation is None else self._synthesise(latents)
        return self._picture(latents["y"], features, size, cut)

    def reconstruct(self, y_hat: Tensor, size: Size, cut: Cut | None = None) -> tuple[Tensor, Tensor]:
        """As in :class:`LearnedCodec`, with the side information that an encoder derives from y_hat."""
        latents = {name: torch.round(latent) for name, latent in self._analyse(y_hat).items()}
        return self.reconstruct_from(latents, size, cut)

    def log_likelihoods(self, latents: Latents) -> Latents:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        return self._log_likelihoods(latents, self._synthesise(latents))

    @property
    def scan_code(self) -> int:
        """That of no order: nothing waits for another position."""
        return PARALLEL

    def latent_shape(self, size: Size) -> Size:
        """Height and width of the deepest latent."""
        level = LEVELS[self.SIDE[0]]
        return pyramid(size, level)[level]

    def quantise_entropy_model(self) -> ExactCoarseToFine:
        """As in :class:`jointiq.models.exact_codec.ExactCodec`."""
        return ExactCoarseToFine.quantise(self)

    def restore_exact(self, tensors: dict[str, Tensor]) -> None:
        """As in :class:`jointiq.models.base.LearnedCodec`."""
        self.use_exact(ExactCoarseToFine(tensors))
        restore_coarse_to_fine(self, tensors)
