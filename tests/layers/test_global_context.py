"""Global context: every form against the definition, written here straight from Eq. 4 to 6 of the paper."""

from math import isqrt

import pytest
import torch

from jointiq.bitstream.scan import MAX_POSITIONS, get_scan, grid_rows
from jointiq.layers.global_context import (
    DENOMINATOR_MIN,
    DENSE_POSITIONS,
    VALUE_FRACTION_BITS,
    VALUE_MAX,
    GlobalContext,
    IntegerGlobalContext,
    integer_sqrt,
    weighted_moments,
)
from jointiq.layers.integer_layers import ACTIVATION_MAX, ONE
from tests.layers.definitions import clip, known_positions

SCANS = ("raster", "wavefront")
GRIDS = [(1, 1), (1, 40), (40, 1), (5, 6), (8, 8), (12, 30)]


def naive(module, name, y_hat):
    """Eq. 4 to 6 with the denominator 1 - sum(w^2), one position and one channel at a time, in float64."""
    _, channels, height, width = y_hat.shape
    weight, bias = module.transform.weight.double().flatten(1), module.transform.bias.double()
    y_bar = torch.einsum("oc,bchw->bohw", weight, y_hat.double()) + bias.view(-1, 1, 1)
    psi, K = module.psi.double(), module.K
    out = torch.zeros(len(y_hat), 2 * channels, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            known = list(known_positions(name, row, column, width))
            if len(known) < module.min_known:
                continue
            drow = torch.tensor([clip(row - r, 0, K) for r, _ in known])
            dcolumn = torch.tensor([clip(c - column, -K, K) + K for _, c in known])
            w = torch.softmax(psi[:, drow, dcolumn], 1)
            values = torch.stack([y_bar[:, :, r, c] for r, c in known], 2)
            mean = (w * values).sum(2)
            variance = (w * (values - mean[..., None]) ** 2).sum(2)
            denominator = (1 - w.square().sum(1)).clamp(min=DENOMINATOR_MIN)
            out[:, :channels, row, column] = mean
            out[:, channels:, row, column] = (variance / denominator + 1e-6).sqrt()
    return out


def make(name, K=7, min_known=4, M=3, seed=0, psi=2.0):
    torch.manual_seed(seed)
    module = GlobalContext(M, K, min_known, get_scan(name))
    torch.nn.init.normal_(module.psi, 0, psi)
    return module


def latent(height, width, M=3, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, M, height, width, generator=generator).mul(4).round()


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize(("grid", "K"), [*((grid, 7) for grid in GRIDS), ((6, 9), 2), ((6, 9), 12), ((26, 11), 3)])
def test_float_forms_equal_the_definition(name, grid, K):
    module, y_hat = make(name, K), latent(*grid, batch=2)
    expected = naive(module, name, y_hat).float()
    # With gradients: the dense form. Without: that in linear time, beyond the size that decides.
    dense = module(y_hat)
    torch.testing.assert_close(dense, expected, rtol=1e-3, atol=2e-3)
    with torch.no_grad():
        torch.testing.assert_close(module(y_hat), expected, rtol=1e-3, atol=2e-3)
    if grid[0] * grid[1] >= 30:
        assert dense.detach().std() > 0.5


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize(("grid", "K"), [((12, 30), 7), ((30, 11), 3), ((2, 140), 5), ((140, 2), 12)])
def test_frozen_weights_have_linear_sums_with_the_gradient_of_the_dense_form(name, grid, K):
    assert grid[0] * grid[1] > DENSE_POSITIONS
    module, y_hat = make(name, K), latent(*grid, batch=2)
    slope = torch.randn(2, 6, *grid, generator=torch.Generator().manual_seed(1))
    gradients = []
    for trained in (True, False):
        module.requires_grad_(trained)
        seen = y_hat.clone().requires_grad_()
        (module(seen) * slope).sum().backward()
        gradients.append(seen.grad)
    assert gradients[0].std() > 0.1
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=2e-3)


def test_both_float_forms_are_covered_above():
    sizes = [height * width for height, width in GRIDS]
    assert min(sizes) < DENSE_POSITIONS < max(sizes)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("min_known", [2, 30])
def test_zero_until_enough_is_known(name, min_known):
    module, y_hat = make(name, min_known=min_known), latent(6, 12)
    active = module(y_hat).abs().sum(1)[0] > 0
    for row in range(6):
        for column in range(12):
            assert bool(active[row, column]) == (len(list(known_positions(name, row, column, 12))) >= min_known)
    assert active.any() and not active.all()


@pytest.mark.parametrize("content", ["random", "constant", "zero", "huge"])
def test_no_nan_and_finite_gradients(content):
    for name in SCANS:
        module = make(name, min_known=2)
        y_hat = latent(8, 8) * (1e5 if content == "huge" else 1)
        if content in ("constant", "zero"):
            y_hat = torch.full_like(y_hat, 5.0 if content == "constant" else 0.0)
        y_hat.requires_grad_()
        out = module(y_hat)
        assert torch.isfinite(out).all()
        out.square().sum().backward()
        for tensor in (y_hat, module.psi, module.transform.weight):
            assert torch.isfinite(tensor.grad).all()
        if content == "random":
            known = torch.tensor([[module.scan.is_known(d, c) for c in range(-7, 8)] for d in range(8)])
            assert (module.psi.grad[:, ~known] == 0).all()
            assert (module.psi.grad[:, known] != 0).float().mean() > 0.5


def test_one_position_with_all_the_weight():
    module = make("raster", min_known=2)
    with torch.no_grad():
        module.psi.fill_(-60)
        module.psi[:, 0, 6] = 60
    y_hat = latent(5, 6)
    out = module(y_hat)
    assert torch.isfinite(out).all()
    y_bar = module.transform(y_hat)
    torch.testing.assert_close(out[0, :3, 4, 3], y_bar[0, :, 4, 2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCANS)
def test_causality(name):
    module, y_hat = make(name, min_known=1), latent(6, 8)
    before = module(y_hat).detach()
    changed = y_hat.clone()
    changed[0, 1, 2, 4] += 50
    moved = ((module(changed).detach() - before).abs() > 1e-2).any(1)[0]
    for row in range(6):
        for column in range(8):
            if (2, 4) not in set(known_positions(name, row, column, 8)):
                assert not moved[row, column]
    assert moved.sum() > 5


def naive_integers(context, name, y_hat):
    """The formulas of docs/format.md in Python integers; y_hat (M, h, w) -> (h, w, 2M)."""
    M, height, width = y_hat.shape
    layer, K = context.transform, context.K
    taps = context.weights.view(M, K + 1, 2 * K + 1).tolist()
    values = {}
    for row in range(height):
        for column in range(width):
            for m in range(M):
                a = [max(-ACTIVATION_MAX, min(ACTIVATION_MAX, int(y) * ONE)) for y in y_hat[:, row, column]]
                total = sum(int(w) * x for w, x in zip(layer.weight[m].tolist(), a, strict=True)) + int(layer.bias[m])
                bits = int(layer.shift[m]) + 12 - VALUE_FRACTION_BITS
                value = (2 * total + (1 << bits)) >> (bits + 1)
                values[row, column, m] = max(-VALUE_MAX, min(VALUE_MAX, value))
    out = torch.zeros(height, width, 2 * M, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            known = list(known_positions(name, row, column, width))
            if len(known) < context.min_known:
                continue
            for m in range(M):
                w = [taps[m][clip(row - r, 0, K)][clip(c - column, -K, K) + K] for r, c in known]
                v = [values[r, c, m] for r, c in known]
                mean, deviation = integer_moments(w, v)
                out[row, column, m] = (mean + 32) >> 6
                out[row, column, M + m] = deviation << 3
    return out


def integer_moments(w, v):
    total = sum(w)
    mean = (sum(a * b for a, b in zip(w, v, strict=True)) << 12) // total
    mean_square = (sum(a * b * b for a, b in zip(w, v, strict=True)) << 24) // total
    variance = max(0, mean_square - mean * mean)
    share = ((sum(a * a for a in w) << 28) // total) // total
    denominator = max((1 << 28) - share, 1 << 18)
    return mean, isqrt(((variance >> 12) << 22) // denominator)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize(("grid", "K"), [((1, 1), 7), ((1, 40), 7), ((12, 1), 3), ((7, 9), 2), ((9, 18), 7)])
def test_integer_network_equals_python_integers_both_ways(name, grid, K):
    module = make(name, K, min_known=6, M=2)
    context = IntegerGlobalContext.quantise(module)
    y_hat = latent(*grid, M=2)[0].long()
    y_hat[:, 0, 0] = torch.tensor([7000, -300])
    expected = naive_integers(context, name, y_hat)
    grid_values = y_hat.permute(1, 2, 0).contiguous()

    state = context.begin(*grid)
    state.write_grid(grid_values)
    assert torch.equal(torch.stack([state.read(run) for run in grid_rows(*grid)]), expected)

    state = context.begin(*grid)
    for run in module.scan.steps(*grid):
        assert torch.equal(state.read(run), expected[run.index()])
        state.write(run, run.take(grid_values))


@pytest.mark.parametrize("name", SCANS)
def test_integer_network_follows_the_float_one(name):
    module, y_hat = make(name, M=4, min_known=30, psi=1.0), latent(12, 20, M=4)
    context = IntegerGlobalContext.quantise(module)
    state = context.begin(12, 20)
    state.write_grid(y_hat[0].permute(1, 2, 0).long().contiguous())
    integers = torch.stack([state.read(run) for run in grid_rows(12, 20)]).permute(2, 0, 1) / ONE
    expected = module(y_hat)[0].detach().double()
    # y_bar is held in steps of 1/64.
    assert (integers - expected).abs().max() < 0.05
    assert expected.abs().max() > 1


def test_quantised_weights():
    module = make("wavefront")
    context = IntegerGlobalContext.quantise(module)
    known = torch.tensor([[module.scan.is_known(d, c) for c in range(-7, 8)] for d in range(8)]).flatten()
    weights = context.weights
    assert (weights[:, ~known] == 0).all()
    assert (weights[:, known] >= 1).all() and (weights.amax(1) == 1 << 16).all()
    psi = module.psi.detach().double().flatten(1)
    expected = torch.exp(psi - psi.masked_fill(~known, -torch.inf).amax(1, keepdim=True))[:, known]
    assert (weights[:, known] / 65536 - expected).abs().max() < 0.005


def test_weighted_moments_on_extremes():
    cases = []
    for w, v in (
        ([1], [5]),
        ([1 << 16], [-VALUE_MAX]),
        ([1 << 16, 1], [VALUE_MAX, -VALUE_MAX]),
        ([1 << 16] * 2, [VALUE_MAX, -VALUE_MAX]),
        ([3, 5, 7], [-1, 0, 1]),
        ([1 << 16] * 4096, [VALUE_MAX, -VALUE_MAX] * 2048),
        ([1 << 16] * 4096, [VALUE_MAX] * 4096),
    ):
        sums = (sum(w), sum(a * a for a in w), sum(a * b for a, b in zip(w, v, strict=True)))
        cases.append((*sums, sum(a * b * b for a, b in zip(w, v, strict=True)), integer_moments(w, v)))
    # The largest grid: half of it at either end of the range.
    n, top = MAX_POSITIONS, 1 << 16
    full = (n * top, n * top**2, 0, n * top * VALUE_MAX**2)
    assert max(full) < 1 << 62
    root = isqrt((((VALUE_MAX**2 << 24) >> 12) << 22) // ((1 << 28) - (1 << 28) // n))
    cases.append((*full, (0, root)))
    columns = [torch.tensor([case[i] for case in cases]) for i in range(4)]
    mean, deviation = weighted_moments(*columns)
    assert list(zip(mean.tolist(), deviation.tolist(), strict=True)) == [case[4] for case in cases]


def test_integer_sqrt():
    roots = torch.cat([torch.arange(300), torch.tensor([2**k + d for k in range(8, 31) for d in (-1, 0, 1)])])
    for offset in (-1, 0, 1):
        x = (roots * roots + offset).clamp(min=0, max=(1 << 62) - 1)
        assert integer_sqrt(x).tolist() == [isqrt(value) for value in x.tolist()]
    assert integer_sqrt(torch.tensor([(1 << 62) - 1])).tolist() == [(1 << 31) - 1]
