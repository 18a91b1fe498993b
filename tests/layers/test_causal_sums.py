"""Sums in linear time against brute force."""

import pytest
import torch

from jointiq.bitstream.scan import get_scan, grid_rows
from jointiq.layers.causal_sums import CausalSums, pair_index, region_counts, tap_is_known
from tests.layers.definitions import clip, known_positions

GRIDS = [(1, 1), (1, 9), (9, 1), (4, 5), (7, 12)]
SCANS = ("raster", "wavefront")


def steps(scan, height, width):
    """The step at which each position is coded."""
    order = torch.empty(height, width, dtype=torch.int64)
    for step, run in enumerate(scan.steps(height, width)):
        order[run.index()] = step
    return order


def brute_counts(name, K, height, width):
    counts = torch.zeros(height, width, K + 1, 2 * K + 1, dtype=torch.int64)
    for row in range(height):
        for column in range(width):
            for r, c in known_positions(name, row, column, width):
                counts[row, column, clip(row - r, 0, K), clip(c - column, -K, K) + K] += 1
    return counts.view(height * width, -1)


def brute_sums(name, K, weights, values):
    height, width, channels = values.shape
    taps = weights.view(K + 1, 2 * K + 1, channels)
    out = torch.zeros_like(values)
    for row in range(height):
        for column in range(width):
            for r, c in known_positions(name, row, column, width):
                out[row, column] += taps[clip(row - r, 0, K), clip(c - column, -K, K) + K] * values[r, c]
    return out


def random_problem(scan, K, height, width, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(1, 1 << 16, ((K + 1) * (2 * K + 1), channels), generator=generator)
    weights = weights * tap_is_known(scan, K).view(-1, 1)
    values = torch.randint(-(1 << 14), 1 << 14, (height, width, channels), generator=generator)
    return weights, values


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("K", [2, 3, 7])
@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (9, 1), (4, 5), (8, 11), (13, 6)])
def test_region_counts(name, K, grid):
    assert torch.equal(region_counts(get_scan(name), K, *grid), brute_counts(name, K, *grid))


@pytest.mark.parametrize("name", SCANS)
def test_pair_index_is_the_same_relation(name):
    index, known = pair_index(get_scan(name), 3, 6, 7)
    counts = torch.zeros(42, 4 * 7, dtype=torch.int64)
    for position in range(42):
        counts[position] = torch.bincount(index[position][known[position]], minlength=28)
    assert torch.equal(counts, brute_counts(name, 3, 6, 7))


@pytest.mark.parametrize("name", SCANS)
def test_what_counts_as_known_is_coded_before(name):
    scan = get_scan(name)
    order = steps(scan, 6, 9)
    for row in range(6):
        for column in range(9):
            for r, c in known_positions(name, row, column, 9):
                assert order[r, c] < order[row, column]
                assert scan.is_known(row - r, c - column)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize(
    ("K", "grid"), [*((K, grid) for K in (2, 3, 7) for grid in GRIDS), (7, (9, 20)), (7, (18, 9)), (5, (14, 7))]
)
def test_integer_sums_are_exact_both_ways(name, K, grid):
    scan = get_scan(name)
    weights, values = random_problem(scan, K, *grid)
    expected = brute_sums(name, K, weights, values)

    # The encoder: everything is there, whole rows are read.
    whole = CausalSums(scan, K, weights, *grid)
    whole.write_grid(values.double())
    rows = torch.stack([whole.read(run) for run in grid_rows(*grid)])
    assert rows.dtype == torch.int64
    assert torch.equal(rows, expected)

    # The decoder: step by step.
    growing = CausalSums(scan, K, weights, *grid)
    for run in scan.steps(*grid):
        assert torch.equal(growing.read(run), expected[run.index()])
        growing.write(run, values[run.index()].double())


def test_largest_values_stay_exact():
    """All weights and values at their limits, and the reach of the default configuration."""
    scan = get_scan("wavefront")
    weights = torch.full((8 * 15, 1), 1 << 16) * tap_is_known(scan, 7).view(-1, 1)
    values = torch.full((14, 20, 1), ((1 << 14) - 1) ** 2)
    expected = brute_sums("wavefront", 7, weights, values)
    whole = CausalSums(scan, 7, weights, 14, 20)
    whole.write_grid(values.double())
    assert torch.equal(torch.stack([whole.read(run) for run in grid_rows(14, 20)]), expected)


@pytest.mark.parametrize("name", SCANS)
def test_float_sums(name):
    scan = get_scan(name)
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(8 * 15, 3, generator=generator, dtype=torch.float64) * tap_is_known(scan, 7).view(-1, 1)
    values = torch.randn(11, 19, 3, generator=generator, dtype=torch.float64)
    result = CausalSums.of_grid(scan, 7, weights, values)
    torch.testing.assert_close(result, brute_sums(name, 7, weights, values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SCANS)
def test_a_value_reaches_only_what_knows_it(name):
    scan = get_scan(name)
    weights, values = random_problem(scan, 2, 7, 9)
    before = CausalSums.of_grid(scan, 2, weights, values.double())
    changed = values.clone()
    changed[3, 4] += 1
    moved = (CausalSums.of_grid(scan, 2, weights, changed.double()) != before).any(-1)
    expected = torch.zeros_like(moved)
    for row in range(7):
        for column in range(9):
            expected[row, column] = (3, 4) in set(known_positions(name, row, column, 9))
    assert torch.equal(moved, expected)
