"""The integer network of the coarse-to-fine hyperprior: latents to bytes and back.

    bytes --> h1_hat --> h_s1 --> 5x5 neighbourhoods --> N(mean, sigma) --> h2_hat --> h_s2 --> ... --> y_hat

Nothing of a latent is needed to decode the rest of it. It is decoded a row of positions at a time all the same, which
bounds the memory that large images take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from jointiq.bitstream.binarisation import binarise
from jointiq.bitstream.rans import DecisionDecoder
from jointiq.entropy_models.base import IntegerEntropyModel
from jointiq.entropy_models.gaussian_mixture import IntegerMixture
from jointiq.entropy_models.integer.recorder import Recorder, in_range, reader
from jointiq.entropy_models.integer.storage import unpack_layers
from jointiq.entropy_models.zero_mean_gaussian import decode_prior, record_prior
from jointiq.layers.hyper_space_to_depth import IntegerDepthToSpaceSynthesis
from jointiq.layers.neighbourhood import IntegerNeighbourhoodPredictor
from jointiq.layers.padding import Size, pyramid

#: Halvings between the image and each latent.
LEVELS = {"h1": 6, "h2": 5, "y": 4}
#: The networks by which the latent above predicts this one: features, and parameters from them.
NETWORKS = {"h2": ("h_s1", "predict_h2"), "y": ("h_s2", "predict_y")}


class IntegerCoarseToFine(IntegerEntropyModel):
    """Integer network of a :class:`jointiq.entropy_models.coarse_to_fine.CoarseToFineEntropyModel`.

    Args:
        tensors: int16 weights, int64 biases, uint8 shifts, int32 log sigmas, by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        layers = unpack_layers(tensors)
        self.names = tuple(name for name in LEVELS if name != "h1" or NETWORKS["h2"][0] in layers)
        self.log_sigma = tensors[f"{self.names[0]}_prior.log_sigma"].long()
        self.synthesis = {name: IntegerDepthToSpaceSynthesis(layers[NETWORKS[name][0]]) for name in self.names[1:]}
        self.predictors = {name: IntegerNeighbourhoodPredictor(layers[NETWORKS[name][1]]) for name in self.names[1:]}

    def record(self, latents: Mapping[str, Tensor]) -> dict[str, Recorder]:
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
        sizes = pyramid(size, 6)
        deepest, *rest = self.names
        above = decode_prior(self.log_sigma, segments[deepest], sizes[LEVELS[deepest]])
        latents = {deepest: above}
        for name in rest:
            height, width = sizes[LEVELS[name]]
            channels = len(self.predictors[name].layers["linear"].weight) // 2
            decoder = DecisionDecoder(segments[name], channels * height * width)
            read = reader(decoder)
            rows = [binarise(row, read).view(width, channels) for row in self._rows(name, above, (height, width))]
            decoder.finish()
            above = latents[name] = torch.stack(rows).permute(2, 0, 1).contiguous()
        return latents

    def _rows(self, name: str, above: Tensor, size: Size) -> Iterator[IntegerMixture]:
        """The distributions of one row of positions after the other, given the latent above it."""
        features = self.synthesis[name](above.to(self.device), size)
        return (IntegerMixture.of_parameters(row, G=1) for row in self.predictors[name].rows(features))
