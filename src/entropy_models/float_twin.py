"""The way back from the integers of an entropy model to float weights, which only estimate rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.layers.context import ABOVE, KNOWN_ENTRIES, WINDOW
from src.layers.fixed_point import ONE
from src.layers.global_context import CONTEXT_WEIGHT_BITS

if TYPE_CHECKING:
    from src.models.jointiq import JointIQNet


@torch.no_grad()
def restore_float_twin(model: JointIQNet, exact: Mapping[str, Tensor]) -> None:
    """Set the float weights of the entropy model to what its integers stand for."""

    def floats(name: str) -> tuple[Tensor, Tensor]:
        shift = exact[f"{name}.shift"].int()
        scale = torch.ldexp(torch.ones(shift.shape, dtype=torch.float64), -shift)
        return exact[f"{name}.weight"] * scale[:, None], exact[f"{name}.bias"] * scale / ONE

    def fill(layer: nn.Module, name: str) -> None:
        weight, bias = floats(name)
        target = layer.weight
        assert isinstance(target, Tensor) and isinstance(layer.bias, Tensor)
        if isinstance(layer, nn.ConvTranspose2d):
            target = target.transpose(0, 1)
        target.copy_(weight.view(target.shape))
        layer.bias.copy_(bias)

    for index, layer in enumerate(model.h_s.deconvs):
        fill(layer, f"h_s.deconv{index}")
    fill(model.h_s.conv, "h_s.conv")

    estimator, M = model.estimator, model.config["M"]
    weight, bias = floats("estimator.window")
    hyper, known = weight.split([WINDOW * WINDOW * M, KNOWN_ENTRIES * M], 1)
    estimator.from_hyper.weight.copy_(hyper.view(-1, WINDOW, WINDOW, M).permute(0, 3, 1, 2))
    assert estimator.from_hyper.bias is not None
    estimator.from_hyper.bias.copy_(bias)
    whole = torch.zeros(len(known), WINDOW * WINDOW, M, dtype=known.dtype)
    whole[:, :KNOWN_ENTRIES] = known.view(-1, KNOWN_ENTRIES, M)
    estimator.from_known.weight.copy_(whole.view(-1, ABOVE + 1, WINDOW, M).permute(0, 3, 1, 2))
    fill(estimator.hidden, "estimator.hidden")
    fill(estimator.preliminary, "estimator.preliminary")
    if estimator.mprm is not None:
        for index, (reduce, expand) in enumerate(zip(estimator.mprm.reduce, estimator.mprm.expand, strict=True)):
            fill(reduce, f"estimator.reduce{index}")
            fill(expand, f"estimator.expand{index}")

    model.z_prior.log_sigma.copy_(exact["z_prior.log_sigma"] / ONE)
    if model.global_context is not None:
        fill(model.global_context.transform, "global_context.transform")
        weights = exact["global_context.weights"].double().clamp(min=1) / (1 << CONTEXT_WEIGHT_BITS)
        model.global_context.psi.copy_(weights.log().view_as(model.global_context.psi))
