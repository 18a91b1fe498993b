"""Global context in the order ``quarters``: every form against the definition, written here position by position."""

from math import isqrt

import pytest
import torch

from jointiq.bitstream.scan import get_scan
from jointiq.layers.block_context import BlockContext, IntegerBlockContext, reach_of, weight_count
from jointiq.layers.global_context import DENOMINATOR_MIN, VALUE_FRACTION_BITS, VALUE_MAX
from jointiq.layers.integer_layers import ACTIVATION_MAX, ONE
from tests.layers.definitions import known_in_quarters, quarter_step
from tests.layers.test_global_context import integer_moments

GRIDS = [(1, 1), (1, 40), (40, 1), (5, 6), (8, 8), (12, 30)]
PLACES = {0: (0, 0), 1: (1, 1), 2: (0, 1), 3: (1, 0)}


def make(K=7, min_known=4, M=3, seed=0, psi=2.0):
    torch.manual_seed(seed)
    module = BlockContext(M, K, min_known)
    torch.nn.init.normal_(module.psi, 0, psi)
    return module


def latent(height, width, M=3, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, M, height, width, generator=generator).mul(4).round()


def taps_of(known, K, step, row, column):
    """Where the weight of each known position lies in the weights of a channel."""
    reach = reach_of(K)
    side = 2 * reach + 1
    first = (step - 1) * (side * side + 1)
    taps = []
    for r, c in known:
        drow, dcolumn = r // 2 - row, c // 2 - column
        near = max(abs(drow), abs(dcolumn)) <= reach
        taps.append(first + ((drow + reach) * side + dcolumn + reach if near else side * side))
    return taps


def blocks(height, width):
    """Every step with every block that has a position in it."""
    for step in range(4):
        row, column = PLACES[step]
        for r in range(row, height, 2):
            for c in range(column, width, 2):
                yield step, r, c


def naive(module, y_hat):
    """Weighted mean and deviation (Eq. 4 to 6) of what is known, in float64: {(row, column): (B, 2M)}."""
    _, channels, height, width = y_hat.shape
    weight, bias = module.transform.weight.double().flatten(1), module.transform.bias.double()
    y_bar = torch.einsum("oc,bchw->bohw", weight, y_hat.double()) + bias.view(-1, 1, 1)
    out = {}
    for step, row, column in blocks(height, width):
        known = known_in_quarters(row, column, height, width)
        out[row, column] = torch.zeros(len(y_hat), 2 * channels, dtype=torch.float64)
        if len(known) < module.min_known:
            continue
        taps = torch.tensor(taps_of(known, module.K, step, row // 2, column // 2))
        w = torch.softmax(module.psi.double()[:, taps], 1)
        values = torch.stack([y_bar[:, :, r, c] for r, c in known], 2)
        mean = (w * values).sum(2)
        variance = (w * (values - mean[..., None]) ** 2).sum(2)
        denominator = (1 - w.square().sum(1)).clamp(min=DENOMINATOR_MIN)
        out[row, column] = torch.cat([mean, (variance / denominator + 1e-6).sqrt()], 1)
    return out


@pytest.mark.parametrize(("grid", "K"), [*((grid, 7) for grid in GRIDS), ((6, 9), 2), ((6, 9), 16), ((26, 11), 3)])
def test_float_form_equals_the_definition(grid, K):
    module, y_hat = make(K), latent(*grid, batch=2)
    found = module(y_hat)
    assert found.shape == (4, 2, 6, (grid[0] + 1) // 2, (grid[1] + 1) // 2)
    for (row, column), expected in naive(module, y_hat).items():
        one = found[quarter_step(row, column), :, :, row // 2, column // 2]
        torch.testing.assert_close(one, expected.float(), rtol=1e-3, atol=2e-3)
    if grid[0] * grid[1] >= 30:
        assert found[1:].detach().std() > 0.5


def test_zero_in_the_first_step_and_until_enough_is_known():
    for min_known, active in ((9, [1, 2, 3]), (10, [2, 3]), (19, [3]), (28, [])):
        found = make(min_known=min_known)(latent(6, 6))
        assert [step for step in range(4) if found[step].abs().sum() > 0] == active


@pytest.mark.parametrize("content", ["random", "constant", "zero", "huge", "one block has all the weight"])
def test_no_nan_and_finite_gradients(content):
    module = make(min_known=2)
    y_hat = latent(20, 24) * (1e5 if content == "huge" else 1)
    if content in ("constant", "zero"):
        y_hat = torch.full_like(y_hat, 5.0 if content == "constant" else 0.0)
    if content.startswith("one"):
        with torch.no_grad():
            module.psi.fill_(-60)
            module.psi[:, 40] = 60
    y_hat.requires_grad_()
    out = module(y_hat)
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    for tensor in (y_hat, module.psi, module.transform.weight):
        assert torch.isfinite(tensor.grad).all()
    if content == "random":
        assert (module.psi.grad != 0).all()


def test_causality():
    module, y_hat = make(min_known=1), latent(6, 8)
    before = module(y_hat).detach()
    for row, column in ((2, 2), (3, 3), (2, 3), (3, 2)):
        changed = y_hat.clone()
        changed[0, 1, row, column] += 50
        moved = ((module(changed).detach() - before).abs() > 1e-2).flatten(1).any(1)
        assert moved.tolist() == [step > quarter_step(row, column) for step in range(4)]


def naive_exact(context, y_hat):
    """The formulas of docs/format.md in Python integers: {(row, column): 2M integers}."""
    M, height, width = y_hat.shape
    layer, values, out = context.transform, {}, {}
    for row in range(height):
        for column in range(width):
            a = [max(-ACTIVATION_MAX, min(ACTIVATION_MAX, int(y) * ONE)) for y in y_hat[:, row, column]]
            for m in range(M):
                total = sum(int(w) * x for w, x in zip(layer.weight[m].tolist(), a, strict=True)) + int(layer.bias[m])
                bits = int(layer.shift[m]) + 12 - VALUE_FRACTION_BITS
                values[row, column, m] = max(-VALUE_MAX, min(VALUE_MAX, (2 * total + (1 << bits)) >> (bits + 1)))
    for step, row, column in blocks(height, width):
        known = known_in_quarters(row, column, height, width)
        means, deviations = [0] * M, [0] * M
        if len(known) >= context.min_known:
            taps = taps_of(known, context.K, step, row // 2, column // 2)
            for m in range(M):
                w = [int(context.weights[m, tap]) for tap in taps]
                mean, deviation = integer_moments(w, [values[r, c, m] for r, c in known])
                means[m], deviations[m] = (mean + 32) >> 6, deviation << 3
        out[row, column] = means + deviations
    return out


@pytest.mark.parametrize(("grid", "K"), [((1, 1), 7), ((1, 40), 7), ((12, 1), 3), ((7, 9), 2), ((9, 18), 7)])
def test_exact_form_equals_python_integers(grid, K):
    context = IntegerBlockContext.quantise(make(K, min_known=6, M=2))
    y_hat = latent(*grid, M=2)[0].long()
    y_hat[:, 0, 0] = torch.tensor([7000, -300])
    expected = naive_exact(context, y_hat)
    values, state = y_hat.permute(1, 2, 0), context.begin(*grid)
    for step in get_scan("quarters").steps(*grid):
        rows, columns = step.index()
        places = zip(rows.tolist(), columns.tolist(), strict=True)
        assert state.read(step).tolist() == [expected[place] for place in places]
        state.write(step, values[rows, columns])


def test_exact_form_follows_the_float_one():
    module, y_hat = make(M=4, min_known=30, psi=1.0), latent(20, 36, M=4)
    expected = module(y_hat)[:, 0].detach().double().permute(0, 2, 3, 1)
    state = IntegerBlockContext.quantise(module).begin(20, 36)
    for step in get_scan("quarters").steps(20, 36):
        rows, columns = step.index()
        difference = state.read(step) / ONE - expected[step.place][rows // 2, columns // 2]
        # y_bar is held in steps of 1/64.
        assert difference.abs().max() < 0.05
        state.write(step, y_hat[0].permute(1, 2, 0)[rows, columns].long())
    assert expected[1:].abs().max() > 1


def test_quantised_weights_and_back():
    module = make()
    context = IntegerBlockContext.quantise(module)
    assert context.weights.shape == module.psi.shape == (3, weight_count(7)) == (3, 3 * 82)
    for part, psi in zip(context.weights.chunk(3, 1), module.psi.detach().double().chunk(3, 1), strict=True):
        assert (part >= 1).all() and (part.amax(1) == 1 << 16).all()
        assert (part / 65536 - torch.exp(psi - psi.amax(1, keepdim=True))).abs().max() < 0.005
    other = make(seed=1)
    context.restore(other)
    assert (IntegerBlockContext.quantise(other).weights - context.weights).abs().max() < 65536 * 0.005


def test_sums_are_exact_at_the_ends_of_the_range():
    """The largest weights and values, at the largest reach, against integers of any size."""
    module = make(K=16, min_known=2, M=1, psi=0.0)
    context = IntegerBlockContext.quantise(module)
    assert (context.weights == 1 << 16).all()
    height = width = 40
    state = context.begin(height, width)
    values = torch.full((height // 2 + 16, width // 2 + 16, 2), 0.0, dtype=torch.float64)
    # The odd last bit would be lost in float64 above 2^53.
    values[8:-8, 8:-8] = torch.tensor([3.0 * VALUE_MAX, 3.0 * VALUE_MAX**2])
    weights = context.moment_weights[2].clone()
    weights[:-1] -= 1
    found = state._weighted(values, weights, values.sum((0, 1)))
    inside = int(values[2:19, 2:19, 1].sum()), int(values[..., 1].sum())
    assert int(found[2, 2, 1]) == inside[0] * 65535 + (inside[1] - inside[0]) * 65536
    assert isqrt(int(found[2, 2, 1])) > 1 << 26
