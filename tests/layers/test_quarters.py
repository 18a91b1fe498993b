"""f in the order ``quarters``: float and integer form against windows that are cut out here, position by position."""

import itertools

import pytest
import torch

from jointiq.bitstream.scan import get_scan
from jointiq.layers.integer_layers import LEAKY_SLOPE, ONE, leaky_relu_, to_fixed
from jointiq.layers.quarters import (
    IntegerQuarterEstimator,
    QuarterEstimator,
    join_quarters,
    known_before,
    split_quarters,
)
from tests.layers.definitions import PLACE, known_in_quarters, quarter_step

# Groups of two channels and of one; two kinds of parameters.
M, KINDS = 11, 2
GRIDS = [(1, 1), (1, 6), (6, 1), (5, 7), (4, 8)]
VARIANTS = pytest.mark.parametrize(("mprm", "context"), [(False, False), (True, False), (True, True)])


def make(mprm=True, context=True, seed=0):
    torch.manual_seed(seed)
    estimator = QuarterEstimator(M, KINDS * M, 2, 2 if mprm else None, context)
    torch.nn.init.normal_(estimator.bias)
    return estimator


def inputs(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    c_prime = torch.randn(1, M, height, width, generator=generator)
    y_hat = torch.randn(1, M, height, width, generator=generator).mul(3).round()
    c_global = torch.randn(8, 1, 2 * M, (height + 1) // 2, (width + 1) // 2, generator=generator)
    return c_prime, y_hat, c_global


def window(x, row, column):
    """The 3x3 window of (M, H, W) around a position, in (row, column, channel) order, zero outside."""
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    return padded[:, row : row + 3, column : column + 3].permute(1, 2, 0).flatten()


def symbols(height, width):
    """Every position with the channels that each step codes there: (step, row, column, channels)."""
    for step, row, column in itertools.product(range(8), range(height), range(width)):
        yield step, row, column, [m for m in range(M) if quarter_step(row, column, m) == step]


def fully_connected(layer, x):
    return layer.weight.permute(0, 2, 3, 1).flatten(1) @ x + (0 if layer.bias is None else layer.bias)


def naive(estimator, c_prime, y_hat, c_global):
    """The float f at one position after the other: (KINDS, M, H, W)."""
    _, height, width = y_hat.shape
    out = torch.full((KINDS, M, height, width), torch.nan)
    for step, row, column, channels in symbols(height, width):
        known = known_in_quarters(y_hat, step)
        x = fully_connected(estimator.hyper_window, window(c_prime, row, column))
        if step:
            x = x + fully_connected(estimator.known_windows[step - 1], window(known, row, column))
        x = x + estimator.bias[step, PLACE[row % 2, column % 2]]
        head = estimator.heads[channels[0] % 8]
        for layer in (estimator.hidden, head.preliminary):
            x = fully_connected(layer, torch.nn.functional.leaky_relu(x, LEAKY_SLOPE))
        for i in range(0 if head.mprm is None else 2):
            g = x.new_zeros(0) if c_global is None else c_global[step, 0, :, row // 2, column // 2]
            inner = fully_connected(head.mprm.reduce[i], torch.cat([x, g]))
            x = x + fully_connected(head.mprm.expand[i], torch.nn.functional.leaky_relu(inner, LEAKY_SLOPE))
        out[:, channels, row, column] = x.view(KINDS, -1)
    return out


@pytest.mark.parametrize("size", GRIDS)
def test_quarters_and_back(size):
    x = torch.randn(2, 3, *size)
    quarters = split_quarters(x)
    assert torch.equal(join_quarters(quarters, size), x)
    for row, column in itertools.product(*map(range, size)):
        assert torch.equal(quarters[PLACE[row % 2, column % 2]][..., row // 2, column // 2], x[..., row, column])


@pytest.mark.parametrize("size", GRIDS)
def test_what_each_step_knows(size):
    y_hat = torch.randn(1, M, *size)
    expected = [known_in_quarters(y_hat[0], step) for step in range(1, 8)]
    assert torch.equal(known_before(y_hat)[:, 0], torch.stack(expected))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@torch.no_grad()
def test_all_maps_are_in_the_channels_last_layout(layout):
    """Whatever that of the weights and inputs is: between two, arithmetic is five times slower on a CPU."""
    channels = 64
    y_hat, c_prime = (torch.randn(2, channels, 4, 6).contiguous(memory_format=layout) for _ in range(2))
    seen = list(known_before(y_hat))
    estimator = QuarterEstimator(channels, KINDS * channels, 1, 1, True).to(memory_format=layout)
    for module in estimator.children():
        for part in module.modules():
            part.register_forward_hook(lambda _, inputs, output: seen.extend([*inputs, output]))
    estimator(c_prime, y_hat, torch.randn(8, 2, 2 * channels, 2, 3))
    assert len(seen) > 100
    assert [each.stride() for each in seen if not each.is_contiguous(memory_format=torch.channels_last)] == []


@VARIANTS
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_float_form_equals_the_definition(mprm, context, grid):
    estimator = make(mprm, context)
    c_prime, y_hat, c_global = inputs(*grid)
    c_global = c_global if context else None
    found = estimator(c_prime, y_hat, c_global)[0].view(KINDS, M, *grid)
    torch.testing.assert_close(found, naive(estimator, c_prime[0], y_hat[0], c_global), rtol=1e-4, atol=1e-4)


@VARIANTS
@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_exact_form_reads_the_windows_of_the_format_and_follows_the_float_one(mprm, context, grid):
    estimator = make(mprm, context)
    c_prime, y_hat, c_global = inputs(*grid)
    expected = estimator(c_prime, y_hat, c_global if context else None)[0].view(KINDS, M, *grid)
    fixed_prime, fixed_y = to_fixed(c_prime[0]).round(), to_fixed(y_hat[0])
    fixed_global = to_fixed(c_global[:, 0]).round().permute(0, 2, 3, 1)
    network = IntegerQuarterEstimator.quantise(estimator)
    state, values = network.begin(fixed_prime), y_hat[0].permute(1, 2, 0)
    found = torch.full_like(expected, torch.nan, dtype=torch.float64)
    for step in get_scan("quarters").steps(*grid):
        blocks = fixed_global[step.number][step.blocks] if context else None
        parts = [part for part in step.parts(found.permute(2, 3, 1, 0)) if part.numel()]
        for part, parameters in zip(parts, state.read(step, blocks), strict=True):
            part.copy_(parameters.view(*part.shape[:2], KINDS, -1).transpose(2, 3))
        state.write(step, step.take(values))
    assert torch.equal(found, found.round())
    assert (found / ONE - expected).abs().max() < 0.03
    for step, row, column, channels in symbols(*grid):
        windows = [window(fixed_prime, row, column), *[torch.zeros(9 * M, dtype=torch.float64)] * 7, torch.zeros(32)]
        if step:
            windows[step] = window(known_in_quarters(fixed_y, step), row, column)
        windows[8][4 * step + PLACE[row % 2, column % 2]] = ONE
        hidden = network.layers["hidden"](leaky_relu_(network.layers["window"](torch.cat(windows)[None])))
        g = fixed_global[step, row // 2, column // 2][None] if context else None
        one = network.heads[channels[0] % 8](leaky_relu_(hidden), g)
        assert torch.equal(one.view(KINDS, -1), found[:, channels, row, column])


@torch.no_grad()
def test_weights_restored_from_integers_give_the_same_integers():
    network = IntegerQuarterEstimator.quantise(make(seed=3))
    other = make(seed=2)
    network.restore(other)
    again = IntegerQuarterEstimator.quantise(other)
    assert network.layers.keys() == again.layers.keys()
    for name, layer in network.layers.items():
        for one, two in zip(layer.floats(), again.layers[name].floats(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_each_step_knows_the_steps_before_it_and_no_other():
    estimator = make()
    c_prime, y_hat, c_global = inputs(8, 8)
    before = estimator(c_prime, y_hat, c_global)
    for row, column, channel in ((2, 2, 0), (3, 3, 5), (2, 3, 9), (3, 2, 7)):
        changed = y_hat.clone()
        changed[0, channel, row, column] += 50
        moved = (estimator(c_prime, changed, c_global) - before).abs()[0].view(KINDS, M, 8, 8).amax(0) > 1e-3
        later = {
            (m, r, c)
            for m, r, c in itertools.product(range(M), range(row - 1, row + 2), range(column - 1, column + 2))
            if quarter_step(r, c, m) > quarter_step(row, column, channel)
        }
        assert {tuple(place) for place in moved.nonzero().tolist()} == later
    assert not torch.allclose(estimator(c_prime + 1, y_hat, c_global), before)
    assert not torch.allclose(estimator(c_prime, y_hat, c_global + 1), before)


@torch.no_grad()
def test_fewer_channels_than_groups():
    torch.manual_seed(0)
    estimator, channels = QuarterEstimator(3, 6, 2, 2, False), 3
    c_prime, y_hat = torch.randn(1, channels, 5, 4), torch.randn(1, channels, 5, 4).mul(3).round()
    expected = estimator(c_prime, y_hat)[0].view(2, channels, 5, 4)
    network = IntegerQuarterEstimator.quantise(estimator)
    state, values = network.begin(to_fixed(c_prime[0]).round()), y_hat[0].permute(1, 2, 0)
    found = torch.full_like(expected, torch.nan, dtype=torch.float64)
    for step in get_scan("quarters").steps(5, 4):
        parts = [part for part in step.parts(found.permute(2, 3, 1, 0)) if part.numel()]
        for part, parameters in zip(parts, state.read(step, None), strict=True):
            part.copy_(parameters.view(*part.shape[:2], 2, -1).transpose(2, 3))
        state.write(step, step.take(values))
    assert (found / ONE - expected).abs().max() < 0.03


def test_every_weight_is_trained():
    estimator = make()
    estimator(*inputs(8, 8)).square().sum().backward()
    for name, parameter in estimator.named_parameters():
        assert (parameter.grad != 0).any(), name
