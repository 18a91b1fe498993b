"""What every enhancer does: any size in and out, a global residual without a clamp, gradients from the first step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jointiq.enhancers.grdn import GRDN, GRDNSettings
from jointiq.enhancers.rdn import RDN, RDNSettings
from jointiq.enhancers.vdsr import VDSR, VDSRSettings

SMALL = {
    "grdn": lambda: GRDN(GRDNSettings(2, 2, 2, 8)),
    "rdn": lambda: RDN(RDNSettings(2, 2, 6)),
    "vdsr": lambda: VDSR(VDSRSettings(4, 6)),
}
#: At the sizes that are trained: how to build it, and what the largest gradient of each parameter exceeds.
TRAINED = {
    "grdn small": (SMALL["grdn"], 0.0),
    "grdn light": (lambda: GRDN(GRDNSettings(4, 3, 3, 32)), 0.0),
    "rdn": (lambda: RDN(RDNSettings(5, 5, 16)), 1e-6),
    "vdsr": (lambda: VDSR(VDSRSettings(20, 34)), 1e-6),
}


@pytest.fixture(params=SMALL)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return SMALL[request.param]()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (16, 16), (17, 20), (20, 17), (33, 35)])
def test_any_size_comes_back_in_the_same_size(network: nn.Module, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) * 2 - 1
    y = network(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert not torch.equal(y, x)


def test_the_output_is_not_clamped_and_the_global_residual_is_there(network: nn.Module) -> None:
    x = torch.full((1, 3, 5, 4), 5.0)
    tail = network.get_submodule("tail")
    torch.nn.init.zeros_(tail.weight)
    torch.nn.init.constant_(tail.bias, 2.0)
    assert torch.equal(network(x), x + 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", TRAINED)
def test_the_first_step_has_a_gradient_for_every_parameter(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    build, least = TRAINED[name]
    network = build()
    x = torch.rand(4 if name.startswith("grdn") else 2, 3, 17, 18) * 2 - 1
    (network(x) - torch.rand_like(x)).square().mean().backward()
    starved = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > least]
    assert starved == []
