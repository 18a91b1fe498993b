"""Small random models that code something."""

from __future__ import annotations

import math
from typing import Any

import torch

from jointiq.entropy_models.gaussian_mixture import parameter_kinds
from jointiq.models import build_model
from jointiq.models.jointiq import JointIQNet

SMALL = {"N": 6, "M": 8, "min_known": 8}


def busy_model(config: dict[str, Any]) -> JointIQNet:
    """Return a small random model, scaled so that its latents are not all zero."""
    torch.manual_seed(0)
    model = build_model({"name": "jointiq", **config}).eval()
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        for layer, name in ((model.g_a.convs[-1], "y"), (model.entropy_model.h_a.convs[-1], "z")):
            layer.weight.mul_(3 / model.analyse(x)[name].std())
        model.entropy_model.z_prior.log_sigma.fill_(math.log(3))
        for head in getattr(model.entropy_model.estimator, "heads", [model.entropy_model.estimator]):
            head.preliminary.bias.view(parameter_kinds(model.entropy_model.G), -1)[-1] += math.log(3)
        if model.entropy_model.global_context is not None:
            model.entropy_model.global_context.psi.normal_(0, 2)
    return model
