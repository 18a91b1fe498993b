"""Fixtures: small 'living' models, whose latents, hyperprior and global context all carry information.

A freshly initialised model rounds nearly everything to zero, and a test of the coder on zeros proves nothing. The
models here are random too, but scaled until they are busy; the fixture checks that they are.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hydra._internal.config_repository import ConfigRepository
from torch import Tensor

from jointiq.coding.image_codec import to_tensor
from jointiq.entropy_models.context import ContextEntropyModel
from jointiq.entropy_models.gaussian_mixture import parameter_kinds
from jointiq.models import build_model
from jointiq.models.base import bits
from jointiq.models.jointiq import JointIQNet
from tests.composing import reading_once
from tests.fresh import Fresh

CONFIG: dict[str, Any] = {"name": "jointiq", "N": 8, "M": 10, "min_known": 8}
Y_STD, Z_STD = 3.0, 2.0


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with smooth areas, edges and some noise: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 16.0
    planes = [np.sin(rows * a + columns * b + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    edges = (np.mgrid[:height, :width][1] % 37 < 11)[..., None] * rng.uniform(-1, 1, 3)
    values = 128 + 70 * np.stack(planes, -1) + 40 * edges + rng.normal(0, 12, (height, width, 3))
    return values.clip(0, 255).astype(np.uint8)


@cache
def _living_state(items: tuple[tuple[str, Any], ...], seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = {**CONFIG, **{key: dict(value) if key == "enhancer" and value else value for key, value in items}}
    torch.manual_seed(seed)
    model = build_model(config).eval()
    x = to_tensor(photo(128, 160))
    with torch.no_grad():
        last = model.g_a.convs[-1]
        scale = Y_STD / model.analyse(x)["y"].std()
        last.weight.mul_(scale)
        last.bias.mul_(scale)
        entropy = model.entropy_model
        assert isinstance(entropy, ContextEntropyModel)
        last = entropy.h_a.convs[-1]
        scale = Z_STD / model.analyse(x)["z"].std()
        last.weight.mul_(scale)
        last.bias.mul_(scale)
        # A prior that fits: where the coder's probabilities end, far out in a Gaussian's tails, files are smaller than
        # its likelihood says.
        z = model.analyse(to_tensor(photo(576, 576)))["z"]
        reach = torch.maximum(z.square().mean((0, 2, 3)).sqrt(), z.abs().amax((0, 2, 3)) / 4).clamp(min=0.5)
        entropy.z_prior.log_sigma.copy_(reach.log() + torch.empty_like(reach).normal_(0, 0.2))
        # f: sigmas around that of y, and parameters that differ from place to place.
        for head in getattr(entropy.estimator, "heads", [entropy.estimator]):
            if head is not entropy.estimator:
                # Few channels at a time, each from windows of its own: their sigmas would reach far into the tails.
                for layer in (head.preliminary, *(() if head.mprm is None else head.mprm.expand)):
                    layer.weight.mul_(0.2)
            head.preliminary.bias.view(parameter_kinds(entropy.G), -1)[-1] += math.log(1.3 * Y_STD)
        if model.config["hyper_exp"]:
            entropy.h_s.conv.weight.mul_(0.02)
        if entropy.global_context is not None:
            entropy.global_context.psi.normal_(0, 2.5)
    return model.config, {name: value.clone() for name, value in model.state_dict().items()}


def make_living(seed: int = 0, **overrides: Any) -> JointIQNet:
    """A fresh copy of a living model in evaluation mode."""
    frozen = {key: tuple(value.items()) if isinstance(value, dict) else value for key, value in overrides.items()}
    config, state = _living_state(tuple(sorted(frozen.items())), seed)
    model = build_model(config)
    model.load_state_dict({name: value.clone() for name, value in state.items()})
    return model.eval()


def assert_alive(model: JointIQNet, image: np.ndarray) -> None:
    """No test with this model and image is vacuous."""
    with torch.inference_mode():
        latents = model.latents(to_tensor(image))
        z_bits = float(bits(model.log_likelihoods(latents)["z"]))
    assert (latents["y"].abs() > 1).float().mean() >= 0.05
    assert z_bits / (image.shape[0] * image.shape[1]) > 0.002
    if model.entropy_model.global_context is not None:
        assert model.entropy_model.global_context.psi.std() >= 2


@pytest.fixture(scope="session")
def living() -> Callable[..., JointIQNet]:
    """``living(seed=0, **config)``: a living model, checked to be one."""

    def make(seed: int = 0, **overrides: Any) -> JointIQNet:
        model = make_living(seed, **overrides)
        assert_alive(model, photo(96, 112))
        return model

    return make


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """``picture(height, width, seed=0)``: an 8-bit RGB test image."""
    return photo


@pytest.fixture(scope="session")
def latents() -> Callable[..., tuple[Tensor, Tensor]]:
    """``latents(model, height, width)``: y_hat (M, h, w) and z_hat (N, ...) of a test image of that size, int64."""

    def make(model: JointIQNet, height: int = 96, width: int = 112, seed: int = 0) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            rounded = model.latents(to_tensor(photo(height, width, seed)))
        return rounded["y"][0].long(), rounded["z"][0].long()

    return make


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    """``fresh.run("src.train", "--help")``: a command line in a process of its own."""
    commands = Fresh(tmp_path_factory.mktemp("fresh"))
    yield commands
    commands.close()


@pytest.fixture(scope="session", autouse=True)
def configs_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ConfigRepository, "load_config", reading_once())
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    """The processes that tests start obey Ctrl-C and a hang-up, also where the tests run in the background."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Tests share the cores; those about threads set their own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
