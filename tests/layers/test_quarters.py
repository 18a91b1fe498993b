"""f in the order ``quarters``: float and integer form against windows that are cut out here, position by position."""

import pytest
import torch

from jointiq.bitstream.scan import get_scan
from jointiq.layers.integer_layers import LEAKY_SLOPE, ONE, to_fixed
from jointiq.layers.quarters import IntegerQuarterEstimator, QuarterEstimator, join_quarters, split_quarters
from tests.layers.definitions import quarter_step

M, P = 4, 12
GRIDS = [(1, 1), (1, 6), (6, 1), (5, 7), (4, 8)]
PLACES = {0: (0, 0), 1: (1, 1), 2: (0, 1), 3: (1, 0)}


def make(mprm=True, context=True, seed=0):
    torch.manual_seed(seed)
    return QuarterEstimator(M, P, 2, 2 if mprm else None, context)


def inputs(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    c_prime = torch.randn(1, M, height, width, generator=generator)
    y_hat = torch.randn(1, M, height, width, generator=generator).mul(3).round()
    c_global = torch.randn(4, 1, 2 * M, (height + 1) // 2, (width + 1) // 2, generator=generator)
    return c_prime, y_hat, c_global


def entry(x, row, column):
    """Channels of (M, H, W) at a position, zero outside."""
    inside = 0 <= row < x.shape[1] and 0 <= column < x.shape[2]
    return x[:, row, column] if inside else x.new_zeros(len(x))


def windows(c_prime, y_hat, row, column):
    """c' of 3x3 positions, and the known positions of the 3x3 blocks around, as docs/format.md orders them."""
    near = [entry(c_prime, row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    known = [
        entry(y_hat, 2 * (row // 2 + i) + PLACES[step][0], 2 * (column // 2 + j) + PLACES[step][1])
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        for step in range(quarter_step(row, column))
    ]
    return torch.cat(near), torch.cat(known) if known else c_prime.new_zeros(0)


def naive(estimator, c_prime, y_hat, c_global):
    """The float f at one position after the other: (H, W, P)."""
    _, height, width = y_hat.shape
    out = torch.zeros(height, width, P)

    def fully_connected(layer, x):
        return layer.weight.permute(0, 2, 3, 1).flatten(1) @ x + (0 if layer.bias is None else layer.bias)

    for row in range(height):
        for column in range(width):
            step = quarter_step(row, column)
            near, known = windows(c_prime, y_hat, row, column)
            x = fully_connected(estimator.hyper_windows[step], near)
            if step:
                x = x + fully_connected(estimator.known_windows[step - 1], known)
            for layer in (estimator.hidden, estimator.preliminary):
                x = fully_connected(layer, torch.nn.functional.leaky_relu(x, LEAKY_SLOPE))
            for i in range(0 if estimator.mprm is None else 2):
                g = x.new_zeros(0) if c_global is None else c_global[step, 0, :, row // 2, column // 2]
                inner = fully_connected(estimator.mprm.reduce[i], torch.cat([x, g]))
                x = x + fully_connected(estimator.mprm.expand[i], torch.nn.functional.leaky_relu(inner, LEAKY_SLOPE))
            out[row, column] = x
    return out


def test_quarters_and_back():
    for size in GRIDS:
        x = torch.randn(2, 3, *size)
        quarters = split_quarters(x)
        assert torch.equal(join_quarters(quarters, size), x)
        for row in range(size[0]):
            for column in range(size[1]):
                quarter = quarters[quarter_step(row, column)]
                assert torch.equal(quarter[..., row // 2, column // 2], x[..., row, column])


@pytest.mark.parametrize(("mprm", "context"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_float_form_equals_the_definition(mprm, context, grid):
    estimator = make(mprm, context)
    c_prime, y_hat, c_global = inputs(*grid)
    c_global = c_global if context else None
    found = estimator(c_prime, y_hat, c_global)[0].permute(1, 2, 0)
    torch.testing.assert_close(found, naive(estimator, c_prime[0], y_hat[0], c_global), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mprm", "context"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_exact_form_reads_the_windows_of_the_format_and_follows_the_float_one(mprm, context, grid):
    estimator = make(mprm, context)
    c_prime, y_hat, c_global = inputs(*grid)
    expected = estimator(c_prime, y_hat, c_global if context else None)[0].permute(1, 2, 0)
    fixed_prime = to_fixed(c_prime[0]).round()
    fixed_global = to_fixed(c_global[:, 0]).round().permute(0, 2, 3, 1)
    network = IntegerQuarterEstimator.quantise(estimator)
    state = network.begin(fixed_prime)
    for step in get_scan("quarters").steps(*grid):
        rows, columns = step.index()
        g = fixed_global[step.place][rows // 2, columns // 2] if context else None
        found = state.read(step, g)
        assert torch.equal(found, found.round())
        assert (found / ONE - expected[rows, columns]).abs().max() < 0.02
        for k, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            x = torch.cat(windows(fixed_prime, to_fixed(y_hat[0]), row, column))[None]
            one = network.pointwise(network.layers[f"window{step.place}"](x), None if g is None else g[k : k + 1])
            assert torch.equal(one[0], found[k])
        state.write(step, y_hat[0].permute(1, 2, 0)[rows, columns])


@torch.no_grad()
def test_weights_restored_from_integers_give_the_same_integers():
    network = IntegerQuarterEstimator.quantise(make(seed=1))
    other = make(seed=2)
    network.restore(other)
    again = IntegerQuarterEstimator.quantise(other)
    for name, layer in network.layers.items():
        for one, two in zip(layer.floats(), again.layers[name].floats(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_each_step_knows_the_steps_before_it_and_no_other():
    estimator = make()
    c_prime, y_hat, c_global = inputs(8, 8)
    before = estimator(c_prime, y_hat, c_global)
    for row, column in ((2, 2), (3, 3), (2, 3), (3, 2)):
        changed = y_hat.clone()
        changed[0, 1, row, column] += 50
        moved = (estimator(c_prime, changed, c_global) - before).abs().amax((0, 1)) > 1e-3
        later = {
            (r, c)
            for r in range(8)
            for c in range(8)
            if quarter_step(r, c) > quarter_step(row, column) and abs(r // 2 - 1) <= 1 and abs(c // 2 - 1) <= 1
        }
        assert {tuple(place) for place in moved.nonzero().tolist()} == later
    assert not torch.allclose(estimator(c_prime + 1, y_hat, c_global), before)
    assert not torch.allclose(estimator(c_prime, y_hat, c_global + 1), before)


def test_every_weight_is_trained():
    estimator = make()
    estimator(*inputs(8, 8)).square().sum().backward()
    for name, parameter in estimator.named_parameters():
        assert (parameter.grad != 0).any(), name
