"""Synthetic latents of a realistic rate, and untrained models that code them.

The time of coding depends on the latents: a model with random weights rounds nearly all of them to zero, and its almost
empty stream says little about speed. So all contenders run all their networks on random weights, but

* hooks put the same synthetic latents in place of what g_a and h_a return, after these have been computed;
* the last layer of each parameter network predicts the scale of each channel, as training would teach it: the right
  scale with an error of 10 % that its random inputs make, so that table look-ups scatter as in a trained model. The
  means it predicts are zero.

The latents are y(c, p) = round(s * a(c) * e(p) * n) with normal n. a(c) falls from 1 to exp(-5) over the channels: a
few are busy, many nearly empty. log e is a smooth normal field of deviation 0.5: busy and quiet places, and tails as
heavy as those of photographs' latents. z is round(0.35 * n), some 0.035 bpp. s is found by bisection so that the
estimated cost of both, in the mean of our mixture and of the single Gaussian of CompressAI's models, is 0.5 bpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck
from compressai.latent_codecs import CheckerboardLatentCodec
from compressai.models import CompressionModel, JointAutoregressiveHierarchicalPriors
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from jointiq.entropy_models.context import ContextEntropyModel
from jointiq.entropy_models.gaussian_mixture import SIGMA_MIN, log_likelihood, log_mass, parameter_kinds
from jointiq.layers.padding import Size, pyramid
from jointiq.models import build_model
from jointiq.models.base import bits
from jointiq.models.jointiq import JointIQNet

TARGET_BPP = 0.5
CHANNEL_DECAY = 5.0
FIELD_DEVIATION = 0.5
# Latent positions per independent value of the field.
FIELD_GRAIN = 4
Z_DEVIATION = 0.35
SCALE_ERROR = 0.1
# Where s is found and the predictions are fitted; the statistics do not depend on the size.
CALIBRATION_SIZE = (512, 768)


@dataclass(frozen=True)
class Latents:
    """The latents that all contenders code: y (1, M, h, w) and z (1, N, ...), integers in float32."""

    y: Tensor
    z: Tensor


def make_latents(size: Size, N: int, M: int, scale: float, seed: int = 0) -> Latents:
    """Return synthetic latents of an image of ``size`` (height, width), at least 32 each; ``scale`` is s."""
    random = torch.Generator().manual_seed(seed)
    sizes = pyramid(size, 6)
    height, width = sizes[4]
    coarse = torch.randn(1, 1, height // FIELD_GRAIN + 2, width // FIELD_GRAIN + 2, generator=random)
    field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    field = (field - field.mean()) / field.std() * FIELD_DEVIATION
    y = torch.randn(1, M, height, width, generator=random) * field.exp() * channel_scales(M, scale).view(-1, 1, 1)
    z = torch.randn(1, N, *sizes[6], generator=random) * Z_DEVIATION
    return Latents(y.round(), z.round())


def channel_scales(M: int, scale: float) -> Tensor:
    """Return s * a(c), (M,)."""
    return scale * torch.exp(-CHANNEL_DECAY * torch.arange(M) / M)


def fitting_log_sigmas(G: int, M: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return weights (G,) and log sigmas (G, M) of G Gaussians that fit y.

    One Gaussian takes the root mean square over the field; several take the nodes of Gauss-Hermite quadrature over it.
    """
    nodes, weights = (torch.from_numpy(values).float() for values in hermegauss(G))
    log_factors = torch.tensor([FIELD_DEVIATION**2]) if G == 1 else FIELD_DEVIATION * nodes
    log_sigmas = log_factors[:, None] + channel_scales(M, scale).log()
    return weights / weights.sum(), log_sigmas.clamp(min=math.log(SIGMA_MIN))


def fitting_mixture(G: int, M: int, scale: float) -> Tensor:
    """Return the G Gaussians that fit y as mixture parameters, (parameter_kinds(G), G, M)."""
    weights, log_sigmas = fitting_log_sigmas(G, M, scale)
    logits = weights.log()[:, None].expand_as(log_sigmas)
    return torch.stack([logits, torch.zeros_like(log_sigmas), log_sigmas][-parameter_kinds(G) :])


def estimated_bpp(latents: Latents, size: Size, G: int, scale: float) -> float:
    """Return the bits per pixel of y under the fitting mixture of G Gaussians, and of z under its Gaussian."""
    M = latents.y.shape[1]
    parameters = fitting_mixture(G, M, scale).reshape(1, -1, 1, 1).expand(-1, -1, *latents.y.shape[-2:])
    y_bits = bits(log_likelihood(latents.y, parameters, G))
    z_bits = bits(log_mass(latents.z, torch.zeros(()), torch.tensor(Z_DEVIATION).log()))
    return float(y_bits + z_bits) / (size[0] * size[1])


def find_scale(N: int, M: int, target: float = TARGET_BPP) -> float:
    """Return the s at which the latents cost ``target`` bits a pixel, in the mean of three Gaussians and one."""
    low, high = 0.01, 100.0
    for _ in range(14):
        middle = math.sqrt(low * high)
        latents = make_latents(CALIBRATION_SIZE, N, M, middle)
        cost = sum(estimated_bpp(latents, CALIBRATION_SIZE, G, middle) for G in (1, 3)) / 2
        low, high = (middle, high) if cost < target else (low, middle)
    return math.sqrt(low * high)


def substitute(model: CompressionModel, latents: Latents) -> list[RemovableHandle]:
    """Make g_a and h_a of a model compute as ever, but return ``latents``, until the handles are removed."""
    (h_a,) = (module for name, module in model.named_modules() if name.split(".")[-1] == "h_a")
    return [
        model.get_submodule("g_a").register_forward_hook(lambda _module, _inputs, _output: latents.y),
        h_a.register_forward_hook(lambda _module, _inputs, _output: latents.z),
    ]


@torch.no_grad()
def fitted_jointiq(config: Mapping[str, Any], scale: float, seed: int = 0) -> JointIQNet:
    """Return a JointIQ-Net with random weights that predicts the scales of the synthetic latents."""
    torch.manual_seed(seed)
    model = build_model(config).eval()
    assert isinstance(model, JointIQNet)
    entropy_model = model.entropy_model
    assert isinstance(entropy_model, ContextEntropyModel)
    G, N, M = entropy_model.G, model.config["N"], model.config["M"]
    entropy_model.z_prior.log_sigma.fill_(math.log(Z_DEVIATION))
    heads = getattr(entropy_model.estimator, "heads", [entropy_model.estimator])
    for head in heads:
        for expand in () if head.mprm is None else head.mprm.expand:
            expand.weight.zero_()
            expand.bias.zero_()
    error = torch.zeros(parameter_kinds(G), G, M)
    error[-1] = SCALE_ERROR
    latents = make_latents(CALIBRATION_SIZE, N, M, scale)
    layers = [head.preliminary for head in heads]
    inputs = _inputs_of(layers, lambda: entropy_model.mixture_parameters(latents.y, latents.z))
    wanted = fitting_mixture(G, M, scale).view_as(error)
    for group, (layer, seen) in enumerate(zip(layers, inputs, strict=True)):
        channels = slice(group, None, len(heads))
        _fit(layer, wanted[..., channels].flatten(), error[..., channels].flatten(), seen)
    return model


@torch.no_grad()
def fitted_compressai(
    build: Callable[[int, int], CompressionModel], N: int, M: int, scale: float, seed: int = 0
) -> CompressionModel:
    """Return a model of CompressAI, random but for predicting the scales of the synthetic latents, its tables made.

    Args:
        build: makes it from N and M.
    """
    torch.manual_seed(seed)
    model = build(N, M).eval()
    # An untrained bottleneck is a logistic density with random offsets; with this scale and without them it fits z.
    fitting = EntropyBottleneck(N, init_scale=Z_DEVIATION * math.sqrt(3) / math.pi)
    for name, parameter in fitting.named_parameters():
        if "bias" in name:
            parameter.zero_()
    fitting.quantiles.copy_(torch.tensor([-8.0, 0.0, 8.0]).expand_as(fitting.quantiles))
    for module in model.modules():
        if isinstance(module, EntropyBottleneck):
            module.load_state_dict(fitting.state_dict())
        if isinstance(module, CheckerboardLatentCodec):
            # Says how its ``forward`` estimates, not how it codes: all parameters at once, those that the coder uses.
            module.forward_method = "onepass"

    latents = make_latents(CALIBRATION_SIZE, N, M, scale)
    hooks = substitute(model, latents)
    layers = _parameter_layers(model)
    synthesis, model.g_s = model.g_s, nn.Identity()
    inputs = _inputs_of(layers, lambda: model(torch.zeros(1, 3, 64, 64)))
    model.g_s = synthesis
    for hook in hooks:
        hook.remove()
    # Scales are followed by as many means, or by none.
    kinds = sum(layer.out_channels for layer in layers) // M
    sigmas = fitting_log_sigmas(1, M, scale)[1][0].exp().split([layer.out_channels // kinds for layer in layers])
    for layer, sigma, seen in zip(layers, sigmas, inputs, strict=True):
        wanted = torch.cat([sigma, torch.zeros(layer.out_channels - len(sigma))])
        _fit(layer, wanted, SCALE_ERROR * wanted, seen)
    model.update()
    return model


def _parameter_layers(model: CompressionModel) -> list[nn.Conv2d]:
    """Return the last layers that predict scales, and means where there are any, of groups of channels in order."""
    networks = [codec.entropy_parameters for codec in model.modules() if isinstance(codec, CheckerboardLatentCodec)]
    if isinstance(model, JointAutoregressiveHierarchicalPriors):
        networks = [model.entropy_parameters]
    # A scale hyperprior ends with ReLU, which changes no scale.
    last = [network[-1] for network in networks] or [model.h_s[-2]]
    assert all(isinstance(layer, nn.Conv2d) for layer in last)
    return last


def _inputs_of(layers: Sequence[nn.Conv2d], run: Callable[[], object]) -> list[Tensor]:
    """Return what each layer reads while ``run`` runs."""
    seen: dict[nn.Module, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, inputs: seen.update({module: inputs[0]})) for layer in layers
    ]
    run()
    for hook in hooks:
        hook.remove()
    return [seen[layer] for layer in layers]


def _fit(layer: nn.Conv2d, wanted: Tensor, error: Tensor, inputs: Tensor) -> None:
    """Scale a last layer so that each channel of its output has mean ``wanted`` and standard deviation ``error``."""
    assert layer.bias is not None
    spread = layer(inputs).transpose(0, 1).flatten(1).std(1)
    layer.weight.mul_(torch.where(error > 0, error / spread, 0)[:, None, None, None])
    offset = wanted - layer(inputs).transpose(0, 1).flatten(1).mean(1)
    # Without an error the output is the bias itself, so that a mean of zero is exactly zero and leaves integers whole.
    layer.bias.copy_(torch.where(error > 0, layer.bias + offset, wanted))
