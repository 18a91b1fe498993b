import pytest

from jointiq.bitstream.scan import ORDERS, SCANS, SET_POSITIONS, ScanStep, get_scan, grid_rows, scan_name
from jointiq.errors import ConfigError
from jointiq.layers.context import ABOVE, LEFT, RIGHT
from tests.layers.definitions import quarter_step

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
def test_quarters_code_every_position_once_in_four_steps(grid):
    height, width = grid
    seen = []
    for step in get_scan("quarters").steps(height, width):
        assert 1 <= step.count <= max(SET_POSITIONS, width // 2 + 1)
        places = positions(step)
        assert len(places) == step.count == step.rows * step.columns
        rows, columns = step.blocks
        assert sorted({(r // 2, c // 2) for r, c in places}) == [
            (r, c) for r in range(rows.start, rows.stop) for c in range(columns.stop)
        ]
        seen += [(quarter_step(row, column), row, column) for row, column in places]
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen) == height * width


def test_four_sets_up_to_the_size_of_a_photograph():
    assert [step.count for step in get_scan("quarters").steps(32, 48)] == [384] * 4
    assert [step.count for step in get_scan("quarters").steps(1, 1)] == [1]


def test_codes_in_the_file_never_change():
    assert {scan.name: scan.code for scan in SCANS.values()} == {"raster": 0, "wavefront": 1}
    assert {scan.name: scan.code for scan in ORDERS.values()} == {"raster": 0, "wavefront": 1, "quarters": 3}
    assert [scan_name(code) for code in range(5)] == ["raster", "wavefront", "parallel", "quarters", "unknown (4)"]
