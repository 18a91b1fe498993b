import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy.stats import norm

from jointiq.bitstream.tables import CDF_BITS, exp_table, inverse_sigma, normal_cdf
from jointiq.entropy_models.gaussian_mixture import (
    SIGMA_MIN,
    IntegerMixture,
    bound_log_sigma,
    log_likelihood,
    log_mass,
    mixture_weights,
    parameter_kinds,
    sigma_level,
    split_parameters,
)

ONE = 1 << 12


def reference_log_mass(value, mean, sigma):
    """With 60 digits, in the tail where no cancellation occurs."""
    with mp.workdps(60):
        distance = abs(mpf(value) - mpf(mean))
        return float(
            mp.log(mp.ncdf((mpf("0.5") - distance) / mpf(sigma)) - mp.ncdf((-mpf("0.5") - distance) / mpf(sigma)))
        )


@pytest.mark.parametrize("sigma", [0.11, 0.5, 2.0, 40.0, 2000.0])
@pytest.mark.parametrize("distance", [0.0, 0.3, 0.5, 0.7, 3.0, 11.0, 300.0])
def test_log_mass_equals_arbitrary_precision(sigma, distance):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        arguments = (torch.tensor(v, dtype=dtype) for v in (distance + 2.0, 2.0, math.log(sigma)))
        assert float(log_mass(*arguments)) == pytest.approx(
            reference_log_mass(distance, 0, sigma), rel=tolerance, abs=1e-4 if dtype == torch.float32 else 1e-9
        )


def test_log_mass_equals_scipy_near_the_mean():
    values = torch.arange(-6, 7.0, dtype=torch.float64)
    expected = torch.tensor(norm.cdf(values + 0.5, 0.3, 1.7) - norm.cdf(values - 0.5, 0.3, 1.7)).log()
    result = log_mass(values, torch.tensor(0.3, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64).log())
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("distance", [20.0, 1000.0, 100_000.0])
@pytest.mark.parametrize("sigma", [0.11, 1.0, 100.0])
def test_far_tails_are_finite_and_pull_the_right_way(distance, sigma):
    value = torch.tensor(distance)
    mean = torch.zeros((), requires_grad=True)
    log_sigma = torch.tensor(math.log(sigma), requires_grad=True)
    result = log_mass(value, mean, log_sigma)
    result.backward()
    assert torch.isfinite(result) and result < 0
    assert mean.grad > 0 and torch.isfinite(mean.grad)
    assert torch.isfinite(log_sigma.grad)
    if distance > 2 * sigma:
        assert log_sigma.grad > 0
        assert float(mean.grad) == pytest.approx(distance / sigma**2, rel=0.2)


def parameters(G, M=2, h=2, w=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, parameter_kinds(G) * G * M, h, w, generator=generator)


@pytest.mark.parametrize("G", [1, 2, 3])
def test_likelihoods_of_all_integers_add_up_to_one(G):
    given = parameters(G).double().float()
    total = sum(log_likelihood(torch.full((1, 2, 2, 3), float(k)), given, G).double().exp() for k in range(-60, 61))
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("G", [1, 3])
def test_layout(G):
    given = parameters(G)
    logits, means, log_sigmas = split_parameters(given, G)
    assert logits.shape == means.shape == log_sigmas.shape == (1, G, 2, 2, 3)
    blocks = given.view(1, -1, G, 2, 2, 3)
    assert torch.equal(means, blocks[:, -2]) and torch.equal(log_sigmas, blocks[:, -1])
    assert torch.equal(logits, blocks[:, 0] if G > 1 else torch.zeros_like(means))
    # By hand, for one symbol.
    y = torch.full((1, 2, 2, 3), 1.0)
    weights = torch.softmax(logits[0, :, 1, 1, 2], 0).tolist()
    mass = 0.0
    for weight, mean, log_sigma in zip(
        weights, means[0, :, 1, 1, 2].tolist(), log_sigmas[0, :, 1, 1, 2].tolist(), strict=True
    ):
        sigma = max(SIGMA_MIN, math.exp(log_sigma))
        mass += weight * (norm.cdf(1.5, mean, sigma) - norm.cdf(0.5, mean, sigma))
    assert float(log_likelihood(y, given, G)[0, 1, 1, 2]) == pytest.approx(math.log(mass), rel=1e-4)


def test_sigma_bound_passes_only_gradients_that_help():
    low = torch.tensor([math.log(0.01), math.log(0.01), 0.0], requires_grad=True)
    bounded = bound_log_sigma(low)
    assert bounded[0].exp().item() == pytest.approx(0.11)
    # Descent on -bounded raises sigma: let through. Descent on +bounded would lower it further: stopped.
    (bounded * torch.tensor([-1.0, 1.0, 1.0])).sum().backward()
    assert low.grad.tolist() == [-1, 0, 1]
    assert bound_log_sigma(torch.tensor([50.0])).exp().item() == pytest.approx(2048)


def test_autocast_leaves_it_in_float32():
    given = parameters(3)
    y = torch.full((1, 2, 2, 3), 130.6)
    expected = log_likelihood(y, given, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = log_likelihood(y, given, 3)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


def test_gradients_reach_every_parameter():
    given = parameters(3).mul(0.3).requires_grad_()
    y = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 2, 3)
    log_likelihood(y, given, 3).sum().backward()
    assert torch.isfinite(given.grad).all() and (given.grad != 0).all()


# --- the integer network ----------------------------------------------------------------------------------------------


def exact(logits, means, sigmas):
    columns = [
        torch.tensor(column, dtype=torch.float64)[:, None] for column in (logits, means, [math.log(s) for s in sigmas])
    ]
    return IntegerMixture(*((column * ONE).round().long() for column in columns))


@pytest.mark.parametrize(
    ("logits", "means", "sigmas"),
    [
        ([0.0], [0.3], [1.0]),
        ([0.0], [-40.7], [0.11]),
        ([0.5, -1.0, 0.0], [0.0, 3.5, -8.2], [0.3, 2.0, 20.0]),
        ([9.0, -9.0, 0.0], [1000.0, -1000.0, 0.0], [500.0, 5.0, 0.2]),
    ],
)
def test_integer_masses_equal_the_float_ones(logits, means, sigmas):
    distribution = exact(logits, means, sigmas)
    weights = torch.softmax(torch.tensor(logits), 0).tolist()
    assert int(distribution.centre) == pytest.approx(sum(w * m for w, m in zip(weights, means, strict=True)), abs=0.6)
    for offset in range(-30, 31):
        expected = sum(
            w * norm.cdf(int(distribution.centre) + offset - 0.5, m, s)
            for w, m, s in zip(weights, means, sigmas, strict=True)
        )
        result = int(distribution.below(slice(None), offset)) / distribution.total
        # sigma in steps of 1/64 of its logarithm, logits in steps of 1/256.
        assert result == pytest.approx(expected, abs=0.008)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-(2**23), 2**23), st.integers(-(2**23), 2**23), st.integers(-(2**23), 2**23)),
        min_size=1,
        max_size=4,
    )
)
def test_below_rises_from_zero_to_everything(gaussians):
    logits, means, log_sigmas = (torch.tensor(column)[:, None] for column in zip(*gaussians, strict=True))
    distribution = IntegerMixture(logits, means, log_sigmas)
    offsets = [-(2**24), -70000, -5000, *range(-40, 41), 5000, 70000, 2**24]
    masses = [int(distribution.below(slice(None), offset)) for offset in offsets]
    assert masses == sorted(masses)
    assert masses[0] == 0 and masses[-1] == distribution.total


def python_below(logits, means, log_sigmas, centre, offset):
    """docs/format.md in Python integers."""
    largest = max(logits)
    powers = [int(exp_table()[min((largest - logit) >> 4, 4095)]) for logit in logits]
    weights = [(power << 16) // sum(powers) for power in powers]
    weights[0] += 65536 - sum(weights)
    total = 0
    for weight, mean, log_sigma in zip(weights, means, log_sigmas, strict=True):
        level = min(max((log_sigma + 9041 + 32) >> 6, 0), 629)
        distance = min(max((centre + offset) * 4096 - 2048 - mean, -(2**27) + 1), 2**27 - 1)
        index = (distance * int(inverse_sigma()[level]) + 2**25) >> 26
        total += weight * int(normal_cdf()[min(max(index, -8192), 8192) + 8192])
    return (sum(w * m for w, m in zip(weights, means, strict=True)) + 2**27) >> 28, total


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-60000, 60000), st.integers(-(2**23), 2**23), st.integers(-20000, 40000)),
        min_size=1,
        max_size=3,
    ),
    st.integers(-3000, 3000),
)
def test_the_written_formulas(gaussians, offset):
    logits, means, log_sigmas = (list(column) for column in zip(*gaussians, strict=True))
    distribution = IntegerMixture(*(torch.tensor(column)[:, None] for column in (logits, means, log_sigmas)))
    centre, total = python_below(logits, means, log_sigmas, int(distribution.centre), offset)
    assert int(distribution.centre) == centre
    assert int(distribution.below(slice(None), offset)) == total


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**23), 2**23), min_size=1, max_size=5), min_size=1, max_size=5))
def test_mixture_weights_add_up(rows):
    width = min(map(len, rows))
    weights = mixture_weights(torch.tensor([row[:width] for row in rows]))
    assert (weights.sum(0) == 1 << 16).all()
    assert (weights >= 0).all()


def test_mixture_weights_are_a_softmax():
    logits = torch.tensor([[0, 4096, -8192], [4096, 4096, 0], [0, 4096, 900]])
    expected = torch.softmax(logits.double() / 4096, 0)
    assert (mixture_weights(logits) / 65536 - expected).abs().max() < 0.003


def test_sigma_levels():
    assert sigma_level(torch.tensor([round(math.log(0.11) * 4096), -(10**6), 10**6])).tolist() == [0, 0, 629]
    for sigma in (0.11, 0.5, 1.0, 17.0, 2000.0):
        level = int(sigma_level(torch.tensor(round(math.log(sigma) * 4096))))
        assert 0.11 * math.exp(level / 64) == pytest.approx(sigma, rel=1 / 128)
        assert int(inverse_sigma()[level]) == pytest.approx(2**24 / sigma, rel=1 / 128)


def test_total_and_order_of_parameters():
    assert IntegerMixture.total == 1 << (16 + CDF_BITS)
    # Two positions, G = 3, M = 2: (kind, Gaussian, channel) along a row, symbols as (position, channel).
    rows = torch.arange(36.0).view(2, 18).double() * 1000
    distribution = IntegerMixture.of_parameters(rows, G=3)
    assert distribution.means[:, 0].tolist() == [6000, 8000, 10000]
    assert distribution.means[:, 1].tolist() == [7000, 9000, 11000]
    assert distribution.means[:, 2].tolist() == [24000, 26000, 28000]
    single = IntegerMixture.of_parameters(rows[:, :4], G=1)
    assert single.means.tolist() == [[0, 1000, 18000, 19000]]
    assert (single.weights == 1 << 16).all()
