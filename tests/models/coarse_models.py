"""Small coarse-to-fine models that are random, but busy: all latents and predictions carry information."""

import math
from functools import cache

import torch

from jointiq.coding.image_codec import to_tensor
from jointiq.models import build_model
from tests.conftest import photo

CONFIG = {"name": "coarse_to_fine", "N": 8, "M": 12, "h2": 8, "h1": 6}
STD = {"y": 3.0, "h2": 2.5, "h1": 2.0}


@cache
def _state(phase, seed):
    torch.manual_seed(seed)
    model = build_model({**CONFIG, "phase": phase}).eval()
    x = to_tensor(photo(128, 160))
    last = {"y": model.g_a.convs[-1], "h2": model.entropy_model.h_a2.pointwise[-1]}
    if model.entropy_model.h_a1 is not None:
        last["h1"] = model.entropy_model.h_a1.pointwise[-1]
    with torch.no_grad():
        for name, layer in last.items():
            scale = STD[name] / model.analyse(x)[name].std()
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
        model.entropy_model.prior.log_sigma.normal_(math.log(STD[model.side[0]]), 0.3)
        for name, (synthesis, predictor) in model.entropy_model.networks().items():
            synthesis.conv.weight.mul_(1 / model.entropy_model.features(model.latents(x))[name].std())
            predictor.linear.weight.mul_(0.5 / predictor(model.entropy_model.features(model.latents(x))[name]).std())
            predictor.linear.bias[len(predictor.linear.bias) // 2 :] += math.log(STD[name])
    return model.config, model.state_dict()


def make_busy(phase=4, seed=0):
    """A fresh copy of a busy model in evaluation mode."""
    config, state = _state(phase, seed)
    model = build_model(config)
    model.load_state_dict({name: value.clone() for name, value in state.items()})
    return model.eval()


def busy_latents(model, height=96, width=112, seed=0):
    """Rounded latents of a test image, int64 (C, h, w) by name, checked to be busy."""
    with torch.inference_mode():
        latents = model.latents(to_tensor(photo(height, width, seed)))
    assert all((latent.abs() > 1).float().mean() > 0.05 for latent in latents.values())
    return {name: latent[0].long() for name, latent in latents.items()}
