"""The coarse-to-fine hyperprior (Hu 2020, section 3): two hyper latents, all positions coded in parallel.

    y_hat --> h_a2 --> h2 --> round --> h2_hat --> h_s2 --> 5x5 neighbourhoods --> N(mean, sigma^2) of y_hat
                                          |
                                          +--> h_a1 --> h1 --> round --> h1_hat --> h_s1 --> 5x5 --> that of h2_hat
                                                                           |
                                                               p(h1_hat): zero-mean Gaussian a channel

y is at 1/16 of the resolution, h2 at 1/32, h1 at 1/64. Widths and kernels are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jointiq.entropy_models import register_entropy_model
from jointiq.entropy_models.base import EntropyModel, Latents
from jointiq.entropy_models.gaussian_mixture import log_likelihood
from jointiq.entropy_models.integer.coarse_to_fine import LEVELS, NETWORKS, IntegerCoarseToFine
from jointiq.entropy_models.integer.storage import pack_layers
from jointiq.entropy_models.zero_mean_gaussian import ZeroMeanGaussian, integer_log_sigma
from jointiq.errors import ConfigError, check_whole
from jointiq.layers.hyper_space_to_depth import (
    DepthToSpaceSynthesis,
    IntegerDepthToSpaceSynthesis,
    SpaceToDepthAnalysis,
)
from jointiq.layers.integer_layers import ONE
from jointiq.layers.neighbourhood import IntegerNeighbourhoodPredictor, NeighbourhoodPredictor
from jointiq.layers.padding import Size, pyramid
from jointiq.layers.quantize import add_uniform_noise, round_ste
from jointiq.parts import Settings, at_least, one_of

#: Stages of the training: g_a, g_s and h2; with h1; with the aggregation; all of it, without the helping heads.
PHASES = (1, 2, 3, 4)
_WITH_H1 = 2


@dataclass(frozen=True)
class CoarseToFineSettings(Settings):
    """Settings of :class:`CoarseToFineEntropyModel`.

    Attributes:
        h2, h1: channels of the hyper latents; 256 and 128 in the authors' code.
        phase: stage of the training. Only what it uses is instantiated; 4 is the finished model.
    """

    h2: int = at_least(4, default=256)
    h1: int = at_least(1, default=128)
    phase: int = one_of(PHASES, default=4, staged=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.h2 % 4:
            raise ConfigError("model.h2", self.h2, "a multiple of 4, because depth-to-space makes it a quarter of them")


@register_entropy_model("coarse_to_fine", CoarseToFineSettings)
class CoarseToFineEntropyModel(EntropyModel):
    """The coarse-to-fine hyperprior, or the parts of it that a phase of its training has; sized by M, at least 3."""

    IN_FORMAT = True
    FLOAT = ("h_a1", "h_a2", "h_s1", "h_s2")

    def __init__(self, N: int, M: int, settings: CoarseToFineSettings) -> None:
        super().__init__()
        check_whole("model.M", M, 3)
        h2, h1, with_h1 = settings.h2, settings.h1, settings.phase >= _WITH_H1
        self.side = ("h1", "h2") if with_h1 else ("h2",)
        # In the authors' code the widths around h1 are these parts of 192 or 384.
        third = M // 3

        self.h_a2 = SpaceToDepthAnalysis(M, 2 * M, 4 * M, h2)
        self.h_s2 = DepthToSpaceSynthesis(h2, 4 * M, M)
        self.predict_y = NeighbourhoodPredictor(M)
        self.h_a1 = SpaceToDepthAnalysis(h2, 4 * third, 2 * third, h1) if with_h1 else None
        self.h_s1 = DepthToSpaceSynthesis(h1, 4 * third, h2) if with_h1 else None
        self.predict_h2 = NeighbourhoodPredictor(h2) if with_h1 else None
        self.h1_prior = ZeroMeanGaussian(h1) if with_h1 else None
        self.h2_prior = None if with_h1 else ZeroMeanGaussian(h2)

    @property
    def deepest(self) -> str:
        """The latent that nothing predicts, ``h1`` or ``h2``."""
        return self.side[0]

    @property
    def prior(self) -> ZeroMeanGaussian:
        """The prior of the deepest latent."""
        prior = self.h2_prior if self.h1_prior is None else self.h1_prior
        assert prior is not None
        return prior

    def networks(self) -> dict[str, tuple[DepthToSpaceSynthesis, NeighbourhoodPredictor]]:
        """Return what predicts each latent but the deepest: the synthesis of the latent above it, and the predictor."""
        names = (*self.side[1:], "y")
        return {name: (getattr(self, NETWORKS[name][0]), getattr(self, NETWORKS[name][1])) for name in names}

    def forward(self, y: Tensor, quality: Tensor | None = None) -> tuple[Latents, Tensor]:
        log_likelihoods, rounded, _ = self.evaluate(self.analyse(y))
        return log_likelihoods, rounded["y"]

    def evaluate(self, latents: Latents) -> tuple[Latents, Latents, Latents]:
        """Return log-likelihoods in nats, rounded latents and :meth:`features`, from the latents of :meth:`analyse`."""
        rounded = {name: round_ste(latent) for name, latent in latents.items()}
        coded = {name: add_uniform_noise(latent) for name, latent in latents.items()} if self.training else rounded
        features = self.features(rounded)
        return self._log_likelihoods(coded, features), rounded, features

    def analyse(self, y: Tensor) -> Latents:
        """Return all latents; each is made from the rounded one below it."""
        h2 = self.h_a2(round_ste(y)).float()
        if self.h_a1 is None:
            return {"h2": h2, "y": y}
        return {"h1": self.h_a1(round_ste(h2)).float(), "h2": h2, "y": y}

    def features(self, rounded: Latents) -> Latents:
        """Return the features that predict a latent, by its name: the synthesis of the rounded latent above it."""
        above = dict(zip((*self.side[1:], "y"), self.side, strict=True))
        return {
            name: synthesis(rounded[above[name]], (rounded[name].shape[-2], rounded[name].shape[-1]))
            for name, (synthesis, _) in self.networks().items()
        }

    def _log_likelihoods(self, coded: Latents, features: Latents) -> Latents:
        """Return those of latents with or without noise."""
        predicted = {name: predictor(features[name]) for name, (_, predictor) in self.networks().items()}
        of_predicted = {name: log_likelihood(coded[name], parameters, G=1) for name, parameters in predicted.items()}
        return {self.deepest: self.prior(coded[self.deepest]), **of_predicted}

    def log_likelihoods(self, latents: Latents, quality: Tensor | None = None) -> Latents:
        return self._log_likelihoods(latents, self.features(latents))

    def latent_shape(self, size: Size) -> Size:
        level = LEVELS[self.deepest]
        return pyramid(size, level)[level]

    def integers(self) -> IntegerCoarseToFine:
        tensors = {f"{self.deepest}_prior.log_sigma": integer_log_sigma(self.prior).int()}
        for name, (synthesis, predictor) in self.networks().items():
            features, parameters = NETWORKS[name]
            tensors |= pack_layers(features, IntegerDepthToSpaceSynthesis.quantise(synthesis).layers)
            tensors |= pack_layers(parameters, IntegerNeighbourhoodPredictor.quantise(predictor).layers)
        return IntegerCoarseToFine(tensors)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> IntegerCoarseToFine:
        """Restore all but the hyper syntheses, which stay as they are: the picture is made from them too."""
        integers = IntegerCoarseToFine(tensors)
        self.prior.log_sigma.copy_(tensors[f"{self.deepest}_prior.log_sigma"] / ONE)
        for name, (_, predictor) in self.networks().items():
            integers.predictors[name].restore(predictor)
        return integers
