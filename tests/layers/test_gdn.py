"""GDN is CompressAI's in every form: with gradients, without, and under autocast."""

from __future__ import annotations

import pytest
import torch
from compressai.layers import GDN as CompressAIGDN

from jointiq.layers.gdn import GDN


def layers(inverse: bool) -> tuple[GDN, CompressAIGDN]:
    torch.manual_seed(0)
    ours, theirs = GDN(6, inverse=inverse), CompressAIGDN(6, inverse=inverse)
    ours.gamma.data += 0.1 * torch.rand(6, 6)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("inverse", [False, True])
def test_value_and_gradients_are_compressais(inverse: bool, memory_format: torch.memory_format) -> None:
    results = []
    x = torch.randn(2, 6, 5, 7)
    for layer in layers(inverse):
        seen = x.to(memory_format=memory_format).requires_grad_()
        y = layer(seen)
        (y * torch.arange(7.0)).sum().backward()
        results.append((y.detach(), seen.grad, layer.beta.grad, layer.gamma.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_are_the_numerical_ones(inverse: bool) -> None:
    layer = layers(inverse)[0].double()
    x = torch.randn(2, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("inverse", [False, True])
def test_frozen_weights_leave_the_gradient_of_the_input(inverse: bool) -> None:
    layer, gradients = layers(inverse)[0], []
    for trained in (True, False):
        layer.requires_grad_(trained)
        x = torch.arange(60.0).view(1, 6, 2, 5).div(20).requires_grad_()
        layer(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("inverse", [False, True])
def test_without_gradients_the_values_are_the_same(inverse: bool) -> None:
    ours, theirs = layers(inverse)
    x = torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        assert torch.allclose(ours(x.clone()), theirs(x), atol=1e-6)


@pytest.mark.parametrize("inverse", [False, True])
def test_under_autocast_it_is_as_exact_as_compressais(inverse: bool) -> None:
    ours, theirs = layers(inverse)
    # What bfloat16 can write, so that all begin with the same values.
    x = torch.randn(2, 6, 70, 50).bfloat16()

    def results(layer: CompressAIGDN, dtype: torch.dtype, autocast: bool) -> list[torch.Tensor]:
        layer.zero_grad()
        seen = x.to(dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            y = layer(seen)
        assert y.dtype == dtype
        y.float().sin().sum().backward()
        assert layer.gamma.grad is not None and layer.gamma.grad.dtype == torch.float32
        leaves = (seen, layer.beta, layer.gamma)
        return [y.detach().float(), *(leaf.grad.float() for leaf in leaves if leaf.grad is not None)]

    exact = results(theirs, torch.float32, False)
    errors = [
        [float((one - right).norm() / right.norm()) for one, right in zip(found, exact, strict=True)]
        for found in (results(ours, torch.bfloat16, True), results(theirs, torch.bfloat16, True))
    ]
    assert [len(each) for each in errors] == [4, 4]
    assert all(own <= 1.1 * other and own < 0.02 for own, other in zip(*errors, strict=True)), errors


def test_float16_is_left_to_compressai() -> None:
    ours, theirs = layers(False)
    x = torch.randn(2, 6, 5, 7).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(40, 70), (1, 1500), (3, 1030)])
def test_maps_of_many_blocks_are_normalised_everywhere(
    size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    ours, theirs = layers(False)
    x = torch.randn(2, 6, size[0] + 1, size[1] + 1).to(memory_format=memory_format)[:, :, 1:, :-1]
    seen, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    for layer, each in ((ours, seen), (theirs, expected)):
        layer(each).sin().sum().backward()
    assert torch.allclose(seen.grad, expected.grad, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        # In place, also in a part of a larger map.
        ours.inplace = True
        wanted = theirs(x)
        assert torch.allclose(ours(x), wanted, atol=1e-6) and torch.allclose(x, wanted, atol=1e-6)


def test_validation_under_autocast() -> None:
    ours, theirs = layers(True)
    x = torch.randn(2, 6, 5, 7, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(ours(x.clone()).float(), theirs(x).float(), rtol=0.02, atol=0.02)
