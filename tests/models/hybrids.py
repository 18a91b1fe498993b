"""A small hybrid model whose latents and scales carry information, for the tests of its networks and of its coding."""

from __future__ import annotations

import math
from typing import Any

import torch

from jointiq.coding.image_codec import to_tensor
from jointiq.entropy_models.gaussian_mixture import parameter_kinds
from jointiq.entropy_models.hybrid import HybridEntropyModel
from jointiq.models import build_model
from jointiq.models.lee2019 import Lee2019Hybrid
from tests.conftest import Y_STD, Z_STD, photo

CONFIG: dict[str, Any] = {"name": "lee2019_hybrid", "N": 8, "M1": 9, "M2": 5}


def living_hybrid(seed: int = 0, **overrides: Any) -> Lee2019Hybrid:
    """A random model in evaluation mode, scaled until it is busy."""
    torch.manual_seed(seed)
    model = build_model({**CONFIG, **overrides}).eval()
    assert isinstance(model, Lee2019Hybrid)
    x, entropy = to_tensor(photo(128, 160)), model.entropy_model
    assert isinstance(entropy, HybridEntropyModel)
    with torch.no_grad():
        for last, name, spread in ((model.g_a.convs[-1], "y", Y_STD), (entropy.h_a.convs[-1], "z", Z_STD)):
            scale = spread / model.analyse(x)[name].std()
            last.weight.mul_(scale)
            last.bias.mul_(scale)
        entropy.z_prior.log_sigma.normal_(math.log(Z_STD), 0.3)
        entropy.h_s.conv.bias[model.config["M1"] :] += math.log(Y_STD)
        entropy.h_s.conv.weight.mul_(0.05)
        for head in getattr(entropy.estimator, "heads", [entropy.estimator]):
            head.preliminary.bias.view(parameter_kinds(entropy.G), -1)[-1] += math.log(Y_STD)
        latents = model.latents(x)
        assert (latents["y"].abs() > 1).float().mean() > 0.05
        assert entropy.mixture_parameters(latents["y"], latents["z"]).std((-2, -1)).max() > 0.1
    return model
