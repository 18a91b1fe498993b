"""The exact entropy model of the coarse-to-fine hyperprior: latents to bytes and back, all of it on integers.

    bytes --> h1_hat --> h_s1 --> 5x5 neighbourhoods --> N(mean, sigma) --> h2_hat --> h_s2 --> ... --> y_hat

Nothing of a latent is needed to decode the rest of it. It is decoded a row of positions at a time all the same, which
bounds the memory that large images take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jointiq.bitstream.binarisation import walk
from jointiq.bitstream.rans import DecisionDecoder
from jointiq.entropy_models.gaussian_mixture import ExactMixture
from jointiq.entropy_models.integer.recorder import Recorder, in_range, reader
from jointiq.entropy_models.integer.storage import pack_layers, restore_layer, unpack_layers
from jointiq.entropy_models.zero_mean_gaussian import decode_prior, exact_log_sigma, record_prior
from jointiq.layers.hyper_space_to_depth import ExactDepthToSpaceSynthesis
from jointiq.layers.integer_layers import ONE
from jointiq.layers.neighbourhood import ExactNeighbourhoodPredictor
from jointiq.layers.padding import Size, pyramid

if TYPE_CHECKING:
    from jointiq.models.coarse_to_fine import CoarseToFine

#: Halvings between the image and each latent.
LEVELS = {"h1": 6, "h2": 5, "y": 4}
#: The networks by which the latent above predicts this one: features, and parameters from them.
NETWORKS = {"h2": ("h_s1", "predict_h2"), "y": ("h_s2", "predict_y")}


class ExactCoarseToFine:
    """Integer entropy model of a :class:`jointiq.models.coarse_to_fine.CoarseToFine`.

    Args:
        tensors: the integers of :meth:`tensors`.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        layers = unpack_layers(tensors)
        self.names = tuple(name for name in LEVELS if name != "h1" or NETWORKS["h2"][0] in layers)
        self.log_sigma = tensors[f"{self.names[0]}_prior.log_sigma"].long()
        self.synthesis = {name: ExactDepthToSpaceSynthesis(layers[NETWORKS[name][0]]) for name in self.names[1:]}
        self.predictors = {name: ExactNeighbourhoodPredictor(layers[NETWORKS[name][1]]) for name in self.names[1:]}

    @classmethod
    def quantise(cls, model: CoarseToFine) -> ExactCoarseToFine:
        """Derive the integers from the float weights of a model; the same on every machine."""
        deepest, *rest = (*model.SIDE, "y")
        tensors = {f"{deepest}_prior.log_sigma": exact_log_sigma(model.prior(deepest)).int()}
        for name in rest:
            synthesis, predictor = model.networks(name)
            features, parameters = NETWORKS[name]
            tensors |= pack_layers(features, ExactDepthToSpaceSynthesis.quantise(synthesis).layers)
            tensors |= pack_layers(parameters, ExactNeighbourhoodPredictor.quantise(predictor).layers)
        return cls(tensors)

    def tensors(self) -> dict[str, Tensor]:
        """All integers that define the model, by name: int16 weights, int64 biases, uint8 shifts, int32 log sigmas."""
        return dict(self._tensors)

    def to(self, device: torch.device | str) -> ExactCoarseToFine:
        """The same model on ``device``."""
        return ExactCoarseToFine({name: tensor.to(device) for name, tensor in self._tensors.items()})

    @property
    def device(self) -> torch.device:
        return self.log_sigma.device

    def record(self, latents: Mapping[str, Tensor]) -> dict[str, Recorder]:
        """The decisions that code each latent, (C, h, w) integers."""
        deepest, *rest = self.names
        recorders, above = {deepest: record_prior(self.log_sigma, latents[deepest])}, latents[deepest]
        for name in rest:
            values = in_range(latents[name], self.device).permute(1, 2, 0)
            recorder = recorders[name] = Recorder()
            for row, distribution in enumerate(self._rows(name, above, (values.shape[0], values.shape[1]))):
                symbols = values[row].flatten()
                recorder.record(distribution, symbols, torch.full_like(symbols, row))
            above = latents[name]
        return recorders

    def decode(self, segments: Mapping[str, bytes], size: Size) -> dict[str, Tensor]:
        """The latents, int64 (C, h, w), of an image of the given size.

        Raises:
            BitstreamError: the segments are damaged so that they cannot be decoded.
        """
        sizes = pyramid(size, 6)
        deepest, *rest = self.names
        above = decode_prior(self.log_sigma, segments[deepest], sizes[LEVELS[deepest]])
        latents = {deepest: above}
        for name in rest:
            height, width = sizes[LEVELS[name]]
            channels = len(self.predictors[name].layers["linear"].weight) // 2
            decoder = DecisionDecoder(segments[name], channels * height * width)
            read = reader(decoder)
            rows = [walk(row, read).view(width, channels) for row in self._rows(name, above, (height, width))]
            decoder.finish()
            above = latents[name] = torch.stack(rows).permute(2, 0, 1).contiguous()
        return latents

    def _rows(self, name: str, above: Tensor, size: Size) -> Iterator[ExactMixture]:
        """The distributions of one row of positions after the other, given the latent above it."""
        features = self.synthesis[name](above.to(self.device), size)
        return (ExactMixture.of_parameters(row, G=1) for row in self.predictors[name].rows(features))


@torch.no_grad()
def restore_coarse_to_fine(model: CoarseToFine, exact: Mapping[str, Tensor]) -> None:
    """Set the float weights that only estimate rates to what the integers of the entropy model stand for.

    Those of the hyper syntheses stay as they are: the picture is made from them too.
    """
    deepest, *rest = (*model.SIDE, "y")
    model.prior(deepest).log_sigma.copy_(exact[f"{deepest}_prior.log_sigma"] / ONE)
    for name in rest:
        _, predictor = model.networks(name)
        prefix = NETWORKS[name][1]
        for index, layer in enumerate(predictor.convs):
            restore_layer(layer, exact, f"{prefix}.conv{index}")
        restore_layer(predictor.linear, exact, f"{prefix}.linear")
