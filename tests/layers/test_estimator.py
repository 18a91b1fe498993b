import pytest
import torch

from jointiq.bitstream.scan import get_scan, grid_rows
from jointiq.layers.estimator import IntegerEstimator, ParameterEstimator
from jointiq.layers.integer_layers import ONE, to_fixed

M, P = 4, 12


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("mprm_width", "context"), [(None, False), (2, False), (3, True)])
def test_parameter_count(mprm_width, context):
    w = 2
    expected = 2 * 16 * M * w * M + w * M + (w * M) ** 2 + w * M + w * M * P + P
    if mprm_width:
        inputs, v = P + (2 * M if context else 0), mprm_width * M
        expected += 2 * (inputs * v + v + v * P + P)
    assert count(ParameterEstimator(M, P, w, mprm_width, context)) == expected


def make(mprm, context, seed=0):
    torch.manual_seed(seed)
    return ParameterEstimator(M, P, 2, 2 if mprm else None, context)


def inputs(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    c_prime = torch.randn(1, M, height, width, generator=generator)
    y_hat = torch.randn(1, M, height, width, generator=generator).mul(3).round()
    c_global = torch.randn(1, 2 * M, height, width, generator=generator)
    return c_prime, y_hat, c_global


@pytest.mark.parametrize(("mprm", "context"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("name", ["raster", "wavefront"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (6, 1), (5, 7)])
@torch.no_grad()
def test_integer_network_is_the_same_both_ways_and_follows_the_float_one(mprm, context, name, grid):
    estimator = make(mprm, context)
    c_prime, y_hat, c_global = inputs(*grid)
    expected = estimator(c_prime, y_hat, c_global if context else None)[0].permute(1, 2, 0)
    fixed_prime = to_fixed(c_prime[0]).round()
    fixed_global = to_fixed(c_global[0]).round().permute(1, 2, 0)
    y_rows = y_hat[0].permute(1, 2, 0).long()

    def context_of(run):
        return fixed_global[run.index()] if context else None

    network = IntegerEstimator.quantise(estimator)
    integers = network.begin(fixed_prime)
    for run in grid_rows(*grid):
        integers.write(run, run.take(y_rows))
    rows = torch.stack([integers.read(run, context_of(run))[0] for run in grid_rows(*grid)])
    assert torch.equal(rows, rows.round())
    assert (rows / ONE - expected).abs().max() < 0.02

    integers = network.begin(fixed_prime)
    for run in get_scan(name).steps(*grid):
        assert torch.equal(integers.read(run, context_of(run))[0], rows[run.index()])
        integers.write(run, run.take(y_rows))


@torch.no_grad()
def test_each_context_has_an_effect():
    estimator = make(True, True)
    c_prime, y_hat, c_global = inputs(4, 4)
    before = estimator(c_prime, y_hat, c_global)
    assert not torch.allclose(estimator(c_prime + 1, y_hat, c_global), before)
    assert not torch.allclose(estimator(c_prime, y_hat + 1, c_global), before)
    assert not torch.allclose(estimator(c_prime, y_hat, c_global + 1), before)
