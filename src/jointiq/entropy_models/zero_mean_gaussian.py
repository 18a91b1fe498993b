"""Prior of z_hat: one zero-mean Gaussian * U(-1/2, 1/2) per channel with a trained sigma (Lee 2019 section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jointiq.bitstream.binarisation import binarise
from jointiq.bitstream.rans import DecisionDecoder
from jointiq.entropy_models.gaussian_mixture import IntegerMixture, bound_log_sigma, log_mass
from jointiq.entropy_models.integer.recorder import Recorder, in_range, reader
from jointiq.layers.gains import interpolate
from jointiq.layers.integer_layers import ONE, require_finite
from jointiq.layers.padding import Size


class ZeroMeanGaussian(nn.Module):
    """log p(z) for z of shape (B, N, h, w); ``log_sigma`` (N,) is trained and starts at sigma = ``initial_sigma``.

    With ``levels``, for a model of all rates, ``log_sigma`` is a curve (levels, N) over the quality.
    """

    def __init__(self, N: int, initial_sigma: float = 2.0, levels: int | None = None) -> None:
        super().__init__()
        shape = (N,) if levels is None else (levels, N)
        self.log_sigma = nn.Parameter(torch.full(shape, initial_sigma).log())

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # A model of one rate as the start of one for all: the same sigmas at every level.
        given = state_dict.get(f"{prefix}log_sigma")
        if given is not None and given.shape == self.log_sigma.shape[1:]:
            state_dict[f"{prefix}log_sigma"] = given.expand_as(self.log_sigma)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, z: Tensor, quality: Tensor | None = None) -> Tensor:
        """Log-likelihood in nats, shape of ``z``, always in float32; ``quality`` (B,) goes with ``levels``."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            curve = self.log_sigma.float()
            log_sigma = bound_log_sigma(curve if quality is None else interpolate(curve, quality))[..., None, None]
            return log_mass(z, torch.zeros_like(log_sigma), log_sigma)


def integer_log_sigma(prior: ZeroMeanGaussian) -> Tensor:
    """The trained log sigmas as fixed-point integers, int64 (N,) or, for all rates, (levels, N)."""
    require_finite(prior.log_sigma)
    return torch.round(prior.log_sigma.detach().double() * ONE).long()


def integer_distribution(log_sigma: Tensor, positions: int) -> IntegerMixture:
    """The integer form: the distribution of z_hat, one symbol per (channel, position) in that order."""
    log_sigmas = log_sigma.repeat_interleave(positions)[None]
    zeros = torch.zeros_like(log_sigmas)
    return IntegerMixture(zeros, zeros, log_sigmas)


def record_prior(log_sigma: Tensor, z_hat: Tensor) -> Recorder:
    """The decisions that code z_hat (N, h, w), integers, all as one set."""
    values = in_range(z_hat, log_sigma.device).flatten()
    recorder = Recorder()
    recorder.record(integer_distribution(log_sigma, z_hat[0].numel()), values, torch.zeros_like(values))
    return recorder


def decode_prior(log_sigma: Tensor, data: bytes, size: Size) -> Tensor:
    """z_hat (N, *size), int64, from the coded decisions of :func:`record_prior`.

    Raises:
        BitstreamError: the data are damaged so that they cannot be decoded.
    """
    positions = size[0] * size[1]
    decoder = DecisionDecoder(data, len(log_sigma) * positions)
    values = binarise(integer_distribution(log_sigma, positions), reader(decoder))
    decoder.finish()
    return values.view(-1, *size)
