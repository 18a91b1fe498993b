"""The way back from the integers of an entropy model to float weights, which only estimate rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jointiq.entropy_models.integer.storage import float_weights, restore_layer
from jointiq.layers.context import ABOVE, KNOWN_ENTRIES, WINDOW
from jointiq.layers.global_context import CONTEXT_WEIGHT_BITS
from jointiq.layers.integer_layers import ONE

if TYPE_CHECKING:
    from jointiq.models.jointiq import JointIQNet


@torch.no_grad()
def restore_float_twin(model: JointIQNet, exact: Mapping[str, Tensor]) -> None:
    """Set the float weights of the entropy model to what its integers stand for."""

    for index, layer in enumerate(model.h_s.deconvs):
        restore_layer(layer, exact, f"h_s.deconv{index}")
    restore_layer(model.h_s.conv, exact, "h_s.conv")

    estimator, M = model.estimator, model.estimator.from_known.in_channels
    weight, bias = float_weights(exact, "estimator.window")
    hyper, known = weight.split([WINDOW * WINDOW * M, KNOWN_ENTRIES * M], 1)
    estimator.from_hyper.weight.copy_(hyper.view(-1, WINDOW, WINDOW, M).permute(0, 3, 1, 2))
    assert estimator.from_hyper.bias is not None
    estimator.from_hyper.bias.copy_(bias)
    whole = torch.zeros(len(known), WINDOW * WINDOW, M, dtype=known.dtype)
    whole[:, :KNOWN_ENTRIES] = known.view(-1, KNOWN_ENTRIES, M)
    estimator.from_known.weight.copy_(whole.view(-1, ABOVE + 1, WINDOW, M).permute(0, 3, 1, 2))
    restore_layer(estimator.hidden, exact, "estimator.hidden")
    restore_layer(estimator.preliminary, exact, "estimator.preliminary")
    if estimator.mprm is not None:
        for index, (reduce, expand) in enumerate(zip(estimator.mprm.reduce, estimator.mprm.expand, strict=True)):
            restore_layer(reduce, exact, f"estimator.reduce{index}")
            restore_layer(expand, exact, f"estimator.expand{index}")

    model.z_prior.log_sigma.copy_(exact["z_prior.log_sigma"] / ONE)
    if model.global_context is not None:
        restore_layer(model.global_context.transform, exact, "global_context.transform")
        weights = exact["global_context.weights"].double().clamp(min=1) / (1 << CONTEXT_WEIGHT_BITS)
        model.global_context.psi.copy_(weights.log().view_as(model.global_context.psi))
