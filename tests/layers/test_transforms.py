import math

import pytest
import torch

from jointiq.layers.integer_layers import ONE
from jointiq.layers.padding import pyramid
from jointiq.layers.transforms import (
    AnalysisTransform,
    HyperAnalysis,
    HyperSynthesis,
    IntegerHyperSynthesis,
    SynthesisTransform,
    integer_exp,
)

SIZES = [(1, 1), (1, 40), (33, 1), (16, 16), (17, 65), (64, 48), (100, 83)]
N, M = 6, 10


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_every_size_comes_back(size):
    sizes = pyramid(size, 6)
    y = AnalysisTransform(N, M)(torch.rand(2, 3, *size))
    assert y.shape == (2, M, *sizes[4])
    z = HyperAnalysis(N, M)(y)
    assert z.shape == (2, N, *sizes[6])
    assert HyperSynthesis(N, M)(z, sizes[4]).shape == y.shape
    assert SynthesisTransform(N, M)(y, size).shape == (2, 3, *size)


def test_paper_scale_image_size():
    assert pyramid((500, 400), 6)[4] == (32, 25)
    with torch.no_grad():
        assert AnalysisTransform(2, 3)(torch.rand(1, 3, 500, 400)).shape == (1, 3, 32, 25)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts():
    gdn = 3 * (N * N + N)
    middle = 2 * (25 * N * N + N)
    assert count(AnalysisTransform(N, M)) == 25 * 3 * N + N + middle + 25 * N * M + M + gdn
    assert count(SynthesisTransform(N, M)) == 25 * M * N + N + middle + 25 * N * 3 + 3 + gdn
    assert count(HyperAnalysis(N, M)) == 9 * M * N + N + middle
    assert count(HyperSynthesis(N, M)) == middle + 9 * N * M + M


def test_gdn_and_its_inverse_are_where_they_belong():
    assert [getattr(gdn, "inverse", None) for gdn in AnalysisTransform(N, M).gdns] == [False] * 3 + [None]
    assert [getattr(gdn, "inverse", None) for gdn in SynthesisTransform(N, M).igdns] == [True] * 3 + [None]


@torch.no_grad()
def test_odd_image_edge_is_replicated():
    g_a = AnalysisTransform(N, M)
    x = torch.rand(1, 3, 31, 32)
    assert torch.equal(g_a(x), g_a(torch.cat([x, x[..., -1:, :]], 2)))
    assert not torch.equal(g_a(x), g_a(torch.nn.functional.pad(x, (0, 0, 0, 1))))


@pytest.mark.parametrize("exp", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 9)])
@torch.no_grad()
def test_integer_h_s_follows_the_float_one(exp, size):
    torch.manual_seed(0)
    h_s = HyperSynthesis(N, M, exp=exp).double()
    h_s.conv.weight.mul_(0.05 if exp else 1)
    z_hat = torch.randint(-9, 10, (N, *pyramid(size, 2)[2])).double()
    expected = h_s(z_hat[None], size)[0]
    integers = IntegerHyperSynthesis.quantise(h_s)(z_hat, size)
    assert integers.shape == (M, *size)
    assert torch.equal(integers, integers.round())
    tolerance = 0.01 * expected.abs().max() if exp else 0.02
    assert (integers / ONE - expected).abs().max() < tolerance
    assert expected.std() > 0.05


def test_integer_exp():
    a = torch.arange(-12 * ONE, 9 * ONE, 37, dtype=torch.float64)
    result = integer_exp(a) / ONE
    for value, power in zip((a / ONE).tolist()[::50], result.tolist()[::50], strict=True):
        expected = math.exp(min(value, 7))
        # Steps of 1/256 in the argument, and of 2^-20 exp(7) in the table.
        assert abs(power - expected) < 0.0025 * expected + 6e-4
    assert bool((result.diff() >= 0).all())


@torch.no_grad()
def test_z_begins_above_the_rounding_noise():
    """And what z_hat says reaches the end of h_s; PyTorch's own weights leave nothing of either."""
    torch.manual_seed(0)
    y_hat = (3 * torch.randn(2, 48, 32, 32)).round()
    z = HyperAnalysis(32, 48)(y_hat)
    assert 1 < z.std() < 20
    h_s = HyperSynthesis(32, 48)
    told = h_s(z.round(), (32, 32)) - h_s(torch.zeros_like(z), (32, 32))
    assert told.std() > 0.3 * z.std()
