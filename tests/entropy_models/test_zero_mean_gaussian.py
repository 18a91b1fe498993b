import math

import pytest
import torch
from scipy.stats import norm

from jointiq.entropy_models.zero_mean_gaussian import ZeroMeanGaussian, integer_distribution, integer_log_sigma


def prior(*sigmas):
    module = ZeroMeanGaussian(len(sigmas))
    with torch.no_grad():
        module.log_sigma.copy_(torch.tensor(sigmas).log())
    return module


def test_one_trained_sigma_a_channel():
    module = ZeroMeanGaussian(5)
    assert [tuple(parameter.shape) for parameter in module.parameters()] == [(5,)]
    assert module.log_sigma.exp().tolist() == pytest.approx([2.0] * 5)


def test_likelihood():
    z = torch.tensor([0.0, 3.0, -3.0, 0.4]).view(1, 2, 2, 1)
    result = prior(0.5, 4.0)(z).exp().flatten().tolist()
    expected = [norm.cdf(v + 0.5, 0, s) - norm.cdf(v - 0.5, 0, s) for v, s in ((0, 0.5), (3, 0.5), (-3, 4), (0.4, 4))]
    assert result == pytest.approx(expected, rel=1e-4)


def test_gradient_raises_sigma_for_large_values():
    module = prior(1.0)
    (-module(torch.full((1, 1, 2, 2), 9.0)).sum()).backward()
    assert module.log_sigma.grad < 0


def test_integer_distribution():
    module = prior(0.02, 0.5, 3.0)
    log_sigma = integer_log_sigma(module)
    assert log_sigma.dtype == torch.int64
    assert log_sigma.tolist() == [round(math.log(s) * 4096) for s in (0.02, 0.5, 3.0)]
    distribution = integer_distribution(log_sigma, 2)
    assert distribution.centre.tolist() == [0] * 6
    for offset in range(-8, 9):
        masses = distribution.below(slice(None), offset).double() / distribution.total
        for channel, sigma in enumerate((0.11, 0.5, 3.0)):
            assert masses[2 * channel] == masses[2 * channel + 1]
            assert float(masses[2 * channel]) == pytest.approx(norm.cdf(offset - 0.5, 0, sigma), abs=0.005)
