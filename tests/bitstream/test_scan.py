import pytest
import torch

from jointiq.bitstream.scan import ORDERS, SCANS, SET_BLOCKS, ScanStep, get_scan, grid_rows, scan_name
from jointiq.errors import ConfigError
from jointiq.layers.context import ABOVE, LEFT, RIGHT
from tests.layers.definitions import PLACE

GRIDS = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 4), (9, 16), (16, 9)]


def positions(run):
    rows, columns = run.index()
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_position_once_and_evenly_spaced(name, grid):
    seen = []
    for run in get_scan(name).steps(*grid):
        assert run.count >= 1
        for k, (row, column) in enumerate(positions(run)):
            assert (row, column) == (run.row + k * run.drow, run.column + k * run.dcolumn)
            assert 0 <= row < grid[0] and 0 <= column < grid[1]
            seen.append((row, column))
    assert len(seen) == len(set(seen)) == grid[0] * grid[1]


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_window_of_a_position_is_coded_before_it(name, grid):
    order = {p: step for step, run in enumerate(get_scan(name).steps(*grid)) for p in positions(run)}
    for row, column in order:
        for r in range(row - ABOVE, row + 1):
            for c in range(column - LEFT, column + RIGHT + 1):
                if (r, c) in order and (r < row or c < column):
                    assert order[r, c] < order[row, column]


def test_raster_goes_row_by_row():
    assert [positions(run) for run in get_scan("raster").steps(2, 3)] == [[(r, c)] for r in range(2) for c in range(3)]


def test_wavefront_steps():
    runs = list(get_scan("wavefront").steps(32, 48))
    assert len(runs) == 48 + 2 * 31
    for t, run in enumerate(runs):
        assert all(column + 2 * row == t for row, column in positions(run))
        assert (run.drow, run.dcolumn) == ((1, -2) if run.count > 1 else (0, 1))
    assert [positions(run) for run in get_scan("wavefront").steps(2, 3)] == [
        [(0, 0)],
        [(0, 1)],
        [(0, 2), (1, 0)],
        [(1, 1)],
        [(1, 2)],
    ]


def test_is_known():
    raster, wavefront = get_scan("raster"), get_scan("wavefront")
    assert raster.is_known(0, -1) and not raster.is_known(0, 0) and not raster.is_known(-1, 0)
    assert raster.is_known(1, 100)
    assert wavefront.is_known(1, 1) and not wavefront.is_known(1, 2)
    assert wavefront.is_known(3, 5) and not wavefront.is_known(3, 6)


def test_grid_rows():
    assert list(grid_rows(2, 5)) == [ScanStep(0, 0, 5, 0, 1), ScanStep(1, 0, 5, 0, 1)]


def test_unknown_scan():
    with pytest.raises(ConfigError, match="raster, wavefront"):
        get_scan("zigzag")


@pytest.mark.parametrize("grid", [*GRIDS, (64, 200), (3, 5000)])
def test_quarters_code_every_symbol_once_in_eight_steps(grid):
    height, width = grid
    steps = list(get_scan("quarters").steps(height, width))
    assert [step.number for step in steps] == sorted(step.number for step in steps)
    coded = torch.full((height, width, 11), -1)
    for step in steps:
        assert all((part == -1).all() for part in step.parts(coded))
        size = (step.bottom - step.top) * ((width + 1) // 2)
        assert 1 <= size <= max(SET_BLOCKS, (width + 1) // 2)
        step.put(coded, torch.full((step.take(coded).numel(),), step.number))
    rows, columns, channels = torch.meshgrid(*map(torch.arange, coded.shape), indexing="ij")
    place = torch.tensor([[PLACE[r, c] for c in range(2)] for r in range(2)])[rows % 2, columns % 2]
    assert torch.equal(coded, (2 * place - channels) % 8)


def test_symbols_of_a_set_are_ordered_by_place_row_column_channel():
    grid = torch.arange(3 * 3 * 16).view(3, 3, 16)
    step = next(get_scan("quarters").steps(3, 3))
    expected = [
        grid[row, column, channel]
        for place in ((0, 0), (1, 1), (0, 1), (1, 0))
        for row in range(place[0], 3, 2)
        for column in range(place[1], 3, 2)
        for channel in range(16)
        if (2 * PLACE[place] - channel) % 8 == 0
    ]
    assert step.take(grid).tolist() == expected
    empty = torch.zeros_like(grid)
    step.put(empty, step.take(grid))
    assert torch.equal(empty, torch.where(torch.isin(grid, torch.stack(expected)), grid, 0))


def test_eight_sets_up_to_the_size_of_a_photograph():
    assert len(list(get_scan("quarters").steps(64, 96))) == 8
    assert len(list(get_scan("quarters").steps(1, 1))) == 8


def test_codes_in_the_file_never_change():
    assert {scan.name: scan.code for scan in SCANS.values()} == {"raster": 0, "wavefront": 1}
    assert {scan.name: scan.code for scan in ORDERS.values()} == {"raster": 0, "wavefront": 1, "quarters": 3}
    assert [scan_name(code) for code in range(5)] == ["raster", "wavefront", "parallel", "quarters", "unknown (4)"]
