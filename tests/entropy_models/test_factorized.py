import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck

from jointiq.entropy_models.factorized import FactorizedDensity, integer_cdf
from jointiq.entropy_models.integer import factorized
from jointiq.entropy_models.integer.factorized import TABLE_BITS, IntegerFactorized, IntegerTable
from jointiq.errors import BitstreamError, ModelError
from jointiq.models.base import bits

TOTAL = 1 << TABLE_BITS


@pytest.fixture
def density():
    """Densities that differ: shifted, skewed, with several modes."""
    torch.manual_seed(0)
    prior = FactorizedDensity(9)
    with torch.no_grad():
        for matrix in prior.matrices:
            matrix.add_(0.4 * torch.randn_like(matrix))
        for factor in prior.factors:
            factor.normal_(0, 0.7)
        prior.biases[0].add_(torch.linspace(-2, 2, 9)[:, None, None])
    return prior


def draw(density, height, width, seed=0):
    """Integers from the densities themselves, (C, h, w)."""
    cdf = integer_cdf(density).double().numpy() / TOTAL
    uniform = np.random.default_rng(seed).random((len(cdf), height * width))
    reach = cdf.shape[1] // 2 - 1
    values = np.stack([np.searchsorted(row, u) - 1 - reach for row, u in zip(cdf, uniform, strict=True)])
    return torch.from_numpy(values).view(len(cdf), height, width)


def test_likelihoods_are_those_of_compressais_density(density):
    """Same parameters, same likelihoods, where CompressAI has not floored them."""
    theirs = EntropyBottleneck(9)
    for ours_part, their_part in ((density.matrices, theirs.matrices), (density.biases, theirs.biases),
                                  (density.factors, theirs.factors)):  # fmt: skip
        for ours, other in zip(ours_part, their_part, strict=True):
            other.data.copy_(ours.data)
    theirs.quantiles.data.zero_()
    y = torch.randint(-20, 21, (2, 9, 5, 4)).float()
    _, likelihood = theirs(y, training=False)
    seen = likelihood > 1e-4
    assert seen.float().mean() > 0.1
    assert torch.allclose(density(y)[seen], likelihood.log()[seen], atol=1e-3)


def test_likelihoods_add_up_to_one(density):
    y = torch.arange(-3000.0, 3001.0).expand(1, 9, 1, -1)
    assert torch.allclose(density(y).exp().sum(-1), torch.ones(()), atol=1e-4)


def test_far_values_keep_value_and_gradient(density):
    y = torch.tensor([-1e5, -300.0, 300.0, 1e5]).expand(1, 9, 1, 4).clone().requires_grad_()
    log_likelihood = density(y)
    log_likelihood.sum().backward()
    assert torch.isfinite(log_likelihood).all() and (log_likelihood < -5).all()
    assert torch.isfinite(y.grad).all() and (y.grad[..., 0] > 0).all() and (y.grad[..., -1] < 0).all()


def test_table(density):
    cdf = integer_cdf(density)
    reach = cdf.shape[1] // 2 - 1
    assert reach & (reach - 1) == 0 and cdf.dtype == torch.int32
    assert (cdf.diff(dim=1) >= 0).all() and (cdf[:, 0] == 0).all() and (cdf[:, -1] == TOTAL).all()
    y = torch.arange(-4.0, 5.0).expand(1, 9, 1, -1)
    masses = cdf.diff(dim=1)[:, reach - 4 : reach + 5].double() / TOTAL
    assert torch.allclose(masses, density(y).exp()[0, :, 0].double(), atol=1e-5)


def test_table_does_not_depend_on_threads_or_on_the_precision_around_it(density):
    one = integer_cdf(density)
    torch.set_num_threads(2)
    assert torch.equal(one, integer_cdf(density)) and torch.equal(one, integer_cdf(density.double()))
    assert not torch.equal(one, integer_cdf(density.bfloat16()))


def test_the_integers_cost_what_the_density_says(density):
    y = draw(density, 40, 50)
    recorder = IntegerFactorized({"cdf": integer_cdf(density)}).record({"y": y})["y"]
    estimate = bits(density(y[None].float())).item()
    assert recorder.bits() == pytest.approx(estimate, rel=0.002)
    assert 8 * len(recorder.encode()) == pytest.approx(recorder.bits(), rel=0.002)


@pytest.mark.parametrize("step_symbols", [1 << 20, 100])
def test_round_trip(density, monkeypatch, step_symbols):
    monkeypatch.setattr(factorized, "STEP_SYMBOLS", step_symbols)
    y = draw(density, 7, 5)
    y[0, 0, :4] = torch.tensor([5000, -5000, (1 << 23) - 1, 1 - (1 << 23)])
    exact = IntegerFactorized({"cdf": integer_cdf(density)})
    data = exact.record({"y": y})["y"].encode()
    assert torch.equal(exact.decode({"y": data}, (7 * 16 - 3, 5 * 16 - 15))["y"], y)
    again = IntegerFactorized(exact.tensors())
    assert torch.equal(again.decode({"y": data}, (7 * 16, 5 * 16))["y"], y)
    with pytest.raises(BitstreamError):
        exact.decode({"y": data[:-8]}, (7 * 16, 5 * 16))


def test_a_channel_beyond_the_table():
    """Far from zero, or without a middle: coded all the same."""
    cdf = torch.zeros(2, 18, dtype=torch.int32)
    cdf[1] = TOTAL
    table = IntegerTable(cdf, 1)
    assert table.centre.tolist() == [8, -8]
    exact, y = IntegerFactorized({"cdf": cdf}), torch.tensor([[[400]], [[-3]]])
    assert torch.equal(exact.decode({"y": exact.record({"y": y})["y"].encode()}, (16, 16))["y"], y)


def test_weights_that_are_not_finite(density):
    density.biases[2].data[0] = torch.nan
    with pytest.raises(ModelError):
        integer_cdf(density)
