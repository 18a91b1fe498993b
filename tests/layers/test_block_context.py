"""Global context in the order ``quarters``: every form against the definition, written here block by block."""

import itertools
from math import isqrt

import pytest
import torch

from jointiq.bitstream.scan import get_scan
from jointiq.layers import block_context
from jointiq.layers.block_context import BlockContext, IntegerBlockContext, reach_of, weight_count
from jointiq.layers.global_context import DENOMINATOR_MIN, VALUE_FRACTION_BITS, VALUE_MAX
from jointiq.layers.integer_layers import ACTIVATION_MAX, ONE
from tests.layers.definitions import PLACE, known_in_quarters
from tests.layers.test_global_context import integer_moments

GRIDS = [(1, 1), (1, 40), (40, 1), (5, 6), (8, 8), (12, 30)]
# Groups of two channels and of one.
M = 9


def make(K=7, min_known=4, M=M, seed=0, psi=2.0):
    torch.manual_seed(seed)
    module = BlockContext(M, K, min_known)
    torch.nn.init.normal_(module.psi, 0, psi)
    return module


def latent(height, width, M=M, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, M, height, width, generator=generator).mul(4).round()


def taps_of(K, row, column, height, width):
    """Where the weight of each position of a grid, row by row, lies in the weights of a channel, seen from a block."""
    reach = reach_of(K)
    side = 2 * reach + 1
    taps = []
    for r, c in itertools.product(range(height), range(width)):
        drow, dcolumn = r // 2 - row, c // 2 - column
        near = max(abs(drow), abs(dcolumn)) <= reach
        taps.append((drow + reach) * side + dcolumn + reach if near else side * side)
    return taps


def blocks(height, width):
    return itertools.product(range((height + 1) // 2), range((width + 1) // 2))


def naive(module, y_hat):
    """Weighted mean and deviation (Eq. 4 to 6) of what is known, in float64: (8, 2M, rows, columns) of blocks."""
    channels, height, width = y_hat.shape
    weight, bias = module.transform.weight.double().flatten(1), module.transform.bias.double()
    out = torch.zeros(8, 2 * channels, (height + 1) // 2, (width + 1) // 2, dtype=torch.float64)
    if height * width < module.min_known:
        return out
    for step in range(1, 8):
        values = (weight @ known_in_quarters(y_hat, step).double().flatten(1)) + bias[:, None]
        for row, column in blocks(height, width):
            w = torch.softmax(module.psi.double()[:, taps_of(module.K, row, column, height, width)], 1)
            mean = (w * values).sum(1)
            variance = (w * (values - mean[:, None]) ** 2).sum(1)
            denominator = (1 - w.square().sum(1)).clamp(min=DENOMINATOR_MIN)
            out[step, :, row, column] = torch.cat([mean, (variance / denominator + 1e-6).sqrt()])
    return out


# Both forms of the weighted sums are to be right at every size.
FORMS = pytest.mark.parametrize("dense_up_to", [1 << 30, 0], ids=["dense", "near and far"])


@FORMS
@pytest.mark.parametrize(("grid", "K"), [*((grid, 7) for grid in GRIDS), ((6, 9), 2), ((6, 9), 16), ((26, 11), 3)])
def test_float_form_equals_the_definition(grid, K, dense_up_to, monkeypatch):
    monkeypatch.setattr(block_context, "DENSE_POSITIONS", dense_up_to)
    module, y_hat = make(K), latent(*grid, batch=2)
    found = module(y_hat)
    for image in range(2):
        torch.testing.assert_close(found[:, image], naive(module, y_hat[image]).float(), rtol=1e-3, atol=3e-3)
    if grid[0] * grid[1] >= 30:
        assert found[1:].detach().std() > 0.5


def test_zero_in_the_first_step_and_in_grids_that_are_too_small():
    for min_known, active in ((36, list(range(1, 8))), (37, [])):
        found = make(min_known=min_known)(latent(6, 6))
        assert [step for step in range(8) if found[step].abs().sum() > 0] == active


@FORMS
@pytest.mark.parametrize("content", ["random", "constant", "zero", "huge", "one block has all the weight"])
def test_no_nan_and_finite_gradients(content, dense_up_to, monkeypatch):
    monkeypatch.setattr(block_context, "DENSE_POSITIONS", dense_up_to)
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
    for row, column, channel in ((2, 2, 0), (3, 3, 5), (2, 3, 8), (3, 2, 7)):
        changed = y_hat.clone()
        changed[0, channel, row, column] += 50
        moved = ((module(changed).detach() - before).abs() > 1e-2).flatten(1).any(1)
        coded = (2 * PLACE[row % 2, column % 2] - channel) % 8
        assert moved.tolist() == [step > coded for step in range(8)]


def naive_exact(context, y_hat):
    """The formulas of docs/format.md in Python integers: {(step, row, column) of a block: 2M integers}."""
    channels, height, width = y_hat.shape
    layer, out = context.transform, {}
    for step, (row, column) in itertools.product(range(8), blocks(height, width)):
        means, deviations = [0] * channels, [0] * channels
        if step and height * width >= context.min_known:
            taps = taps_of(context.K, row, column, height, width)
            known = known_in_quarters(y_hat, step).flatten(1).T.tolist()
            inputs = [[max(-ACTIVATION_MAX, min(ACTIVATION_MAX, y * ONE)) for y in position] for position in known]
            for m in range(channels):
                weights, bias = [int(weight) for weight in layer.weight[m]], int(layer.bias[m])
                bits = int(layer.shift[m]) + 12 - VALUE_FRACTION_BITS
                values = []
                for a in inputs:
                    total = sum(w * x for w, x in zip(weights, a, strict=True)) + bias
                    values.append(max(-VALUE_MAX, min(VALUE_MAX, (2 * total + (1 << bits)) >> (bits + 1))))
                mean, deviation = integer_moments([int(context.weights[m, tap]) for tap in taps], values)
                means[m], deviations[m] = (mean + 32) >> 6, deviation << 3
        out[step, row, column] = means + deviations
    return out


def contexts(context, y_hat):
    """c''' of each step, by an image's state: {step: (rows, columns, 2M) of blocks}."""
    state, values, found = context.begin(*y_hat.shape[1:]), y_hat.permute(1, 2, 0), {}
    for step in get_scan("quarters").steps(*y_hat.shape[1:]):
        found[step.number] = state.read(step).clone()
        state.write(step, step.take(values))
    return found


@pytest.mark.parametrize(("grid", "K"), [((1, 1), 7), ((1, 40), 7), ((12, 1), 3), ((7, 9), 2), ((9, 12), 7)])
def test_exact_form_equals_python_integers(grid, K):
    context = IntegerBlockContext.quantise(make(K, min_known=6))
    y_hat = latent(*grid)[0].long()
    y_hat[:2, 0, 0] = torch.tensor([7000, -300])
    found = contexts(context, y_hat)
    for (step, row, column), expected in naive_exact(context, y_hat).items():
        assert found[step][row, column].tolist() == expected


def test_exact_form_follows_the_float_one():
    module, y_hat = make(min_known=30, psi=1.0), latent(20, 36)
    expected = module(y_hat)[:, 0].detach().double().permute(0, 2, 3, 1)
    for step, found in contexts(IntegerBlockContext.quantise(module), y_hat[0].long()).items():
        # y_bar is held in steps of 1/64.
        assert (found / ONE - expected[step]).abs().max() < 0.05
    assert expected[1:].abs().max() > 1


def test_quantised_weights_and_back():
    module = make()
    context = IntegerBlockContext.quantise(module)
    assert context.weights.shape == module.psi.shape == (M, weight_count(7)) == (M, 82)
    assert (context.weights >= 1).all() and (context.weights.amax(1) == 1 << 16).all()
    psi = module.psi.detach().double()
    assert (context.weights / 65536 - torch.exp(psi - psi.amax(1, keepdim=True))).abs().max() < 0.005
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
    weights = context.moment_weights.clone()
    weights[:-1] -= 1
    found = state._weighted(values, weights, values.sum((0, 1)))
    inside = int(values[2:19, 2:19, 1].sum()), int(values[..., 1].sum())
    assert int(found[2, 2, 1]) == inside[0] * 65535 + (inside[1] - inside[0]) * 65536
    assert isqrt(int(found[2, 2, 1])) > 1 << 26
