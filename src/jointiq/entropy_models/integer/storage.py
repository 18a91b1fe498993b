"""Exact layers as named tensors, the form in which a file of a model holds them, and the way back to float weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from jointiq.layers.integer_layers import ONE, ExactLinear


def pack_layers(prefix: str, layers: Mapping[str, ExactLinear]) -> dict[str, Tensor]:
    """Layers as tensors ``prefix.name.part``: int16 weight, int64 bias, uint8 shift, uint8 fraction_bits."""
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{prefix}.{name}.weight"] = layer.weight.to(torch.int16)
        tensors[f"{prefix}.{name}.bias"] = layer.bias.to(torch.int64)
        tensors[f"{prefix}.{name}.shift"] = layer.shift.to(torch.uint8)
        tensors[f"{prefix}.{name}.fraction_bits"] = torch.tensor([layer.fraction_bits], dtype=torch.uint8)
    return tensors


def unpack_layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, ExactLinear]]:
    """The layers of :func:`pack_layers`, by prefix and name."""
    groups: dict[str, dict[str, ExactLinear]] = {}
    for key, weight in tensors.items():
        if not key.endswith(".weight"):
            continue
        prefix, name, _ = key.split(".")
        stem = key.removesuffix("weight")
        groups.setdefault(prefix, {})[name] = ExactLinear(
            weight, tensors[stem + "bias"], tensors[stem + "shift"].int(), int(tensors[stem + "fraction_bits"][0])
        )
    return groups


def float_weights(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """What the integers of the layer ``name`` stand for: weight (outputs, inputs) and bias (outputs,), float64."""
    shift = tensors[f"{name}.shift"].int()
    scale = torch.ldexp(torch.ones(shift.shape, dtype=torch.float64), -shift)
    return tensors[f"{name}.weight"] * scale[:, None], tensors[f"{name}.bias"] * scale / ONE


@torch.no_grad()
def restore_layer(layer: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Set a convolution, or a transposed one, to what the integers of the layer ``name`` stand for."""
    weight, bias = float_weights(tensors, name)
    target = layer.weight
    assert isinstance(target, Tensor) and isinstance(layer.bias, Tensor)
    if isinstance(layer, nn.ConvTranspose2d):
        target = target.transpose(0, 1)
    target.copy_(weight.view(target.shape))
    layer.bias.copy_(bias)
