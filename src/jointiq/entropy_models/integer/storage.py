"""Integer layers as named tensors: the form in which a file of a model holds them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jointiq.layers.integer_layers import IntegerLinear


def pack_layers(prefix: str, layers: Mapping[str, IntegerLinear]) -> dict[str, Tensor]:
    """Layers as tensors ``prefix.name.part``: int16 weight, int64 bias, uint8 shift, uint8 fraction_bits."""
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{prefix}.{name}.weight"] = layer.weight.to(torch.int16)
        tensors[f"{prefix}.{name}.bias"] = layer.bias.to(torch.int64)
        tensors[f"{prefix}.{name}.shift"] = layer.shift.to(torch.uint8)
        tensors[f"{prefix}.{name}.fraction_bits"] = torch.tensor([layer.fraction_bits], dtype=torch.uint8)
    return tensors


def unpack_layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, IntegerLinear]]:
    """The layers of :func:`pack_layers`, by prefix and name."""
    groups: dict[str, dict[str, IntegerLinear]] = {}
    for key, weight in tensors.items():
        if not key.endswith(".weight"):
            continue
        prefix, name, _ = key.split(".")
        stem = key.removesuffix("weight")
        groups.setdefault(prefix, {})[name] = IntegerLinear(
            weight, tensors[stem + "bias"], tensors[stem + "shift"].int(), int(tensors[stem + "fraction_bits"][0])
        )
    return groups
