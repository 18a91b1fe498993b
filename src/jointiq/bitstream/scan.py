"""The order in which the positions of a latent grid are coded.

``raster``: row by row, as in the paper; one position a step.
``wavefront``: positions with equal t = column + 2 * row form one step. The 4x4 window of a position reaches one column
to the right in the rows above, and such a neighbour has a smaller t, so the positions of one step never see each other
and are coded together: a 32x48 grid takes 110 steps in place of 1536.
``quarters``: four steps, whatever the size. Each codes one position of every 2x2 block, :data:`PLACES`.

Positions of a step of raster and wavefront are evenly spaced, so a step is its first row and column, a count, and the
rows and columns from one position to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jointiq.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The largest grid: up to here the sums of the integer global context fit their types.
MAX_POSITIONS = 1 << 18


@dataclass(frozen=True)
class ScanStep:
    """Positions that are coded together: (row + k * drow, column + k * dcolumn), k = 0 .. count - 1."""

    row: int
    column: int
    count: int
    drow: int
    dcolumn: int

    def index(self, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Rows and columns of the positions, for indexing a (height, width, ...) tensor."""
        # Imported late: the header of a file is read without PyTorch.
        import torch

        index = torch.arange(self.count, device=device)
        return self.row + self.drow * index, self.column + self.dcolumn * index

    def view(
        self, grid: Tensor, drow: int, dcolumn: int, *axes: tuple[int, int, int], values: int | None = None
    ) -> Tensor:
        """Return a view of a contiguous grid (rows, columns, C): entries at an offset from each position of the step.

        Args:
            drow, dcolumn: the offset, in rows and columns of ``grid``; not checked.
            axes: (size, drow, dcolumn) of each axis before that of the positions: how far apart its entries are.
            values: how many values in a row, beginning with the entry's first; None: its own, C.

        Returns:
            (sizes of the axes, count, values).
        """
        down, right, _ = grid.stride()
        offset = (self.row + drow) * down + (self.column + dcolumn) * right
        sizes = [size for size, _, _ in axes]
        strides = [axis_down * down + axis_right * right for _, axis_down, axis_right in axes]
        along_step = self.drow * down + self.dcolumn * right
        shape = (*sizes, self.count, grid.shape[-1] if values is None else values)
        return grid.as_strided(shape, (*strides, along_step, 1), offset)


def grid_rows(height: int, width: int) -> Iterator[ScanStep]:
    """Return whole rows of the grid: the steps that an encoder, which knows every value, works in."""
    for row in range(height):
        yield ScanStep(row, 0, width, 0, 1)


class Scan:
    """An order of coding, and which positions are known at each step.

    Attributes:
        name: ``raster`` or ``wavefront``.
        code: the byte that stands for it in a file.
        slant: with global context, the known columns of the row ``d`` rows above are those < column + slant * d;
            None where rows above are known whole.
    """

    def __init__(self, name: str, code: int, slant: int | None) -> None:
        self.name = name
        self.code = code
        self.slant = slant

    def steps(self, height: int, width: int) -> Iterator[ScanStep]:
        """The steps of the scan, in order; together they visit every position once."""
        if self.slant is None:
            for row in range(height):
                for column in range(width):
                    yield ScanStep(row, column, 1, 0, 1)
            return
        for t in range(width + self.slant * (height - 1)):
            first = max(0, -((width - 1 - t) // self.slant))
            last = min(height - 1, t // self.slant)
            if first == last:
                yield ScanStep(first, t - self.slant * first, 1, 0, 1)
            elif first < last:
                yield ScanStep(first, t - self.slant * first, last - first + 1, 1, -self.slant)

    def is_known(self, drow: int, dcolumn: int) -> bool:
        """Whether the position ``drow`` rows above and ``dcolumn`` columns to the right counts as already known."""
        if drow == 0:
            return dcolumn < 0
        return drow > 0 and (self.slant is None or dcolumn < self.slant * drow)


SCANS = {scan.name: scan for scan in (Scan("raster", 0, None), Scan("wavefront", 1, 2))}

#: ``quarters``: row and column, in each 2x2 block, of the position that each step codes. The second lies diagonally
#: opposite to the first, so that every position of the third and fourth has known ones above, below, left and right.
PLACES = ((0, 0), (1, 1), (0, 1), (1, 0))
# Most positions of a quarter that are coded as one set: it bounds the memory.
SET_POSITIONS = 1 << 11


@dataclass(frozen=True)
class QuarterStep:
    """Positions that are coded together: those at one place of the 2x2 blocks, in some rows of blocks.

    Attributes:
        place: index into :data:`PLACES`; what is coded at the places before it is known.
        top: first row of blocks.
        rows, columns: how many positions there are in each direction.
    """

    place: int
    top: int
    rows: int
    columns: int

    @property
    def count(self) -> int:
        """Number of positions."""
        return self.rows * self.columns

    @property
    def blocks(self) -> tuple[slice, slice]:
        """The blocks of the positions, for indexing a (rows of blocks, columns of blocks, ...) tensor."""
        return slice(self.top, self.top + self.rows), slice(self.columns)

    def index(self, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Rows and columns of the positions, row by row, for indexing a (height, width, ...) tensor."""
        import torch

        row, column = PLACES[self.place]
        rows = 2 * (self.top + torch.arange(self.rows, device=device)) + row
        columns = 2 * torch.arange(self.columns, device=device) + column
        return rows.repeat_interleave(self.columns), columns.repeat(self.rows)


class Quarters:
    """The order ``quarters``.

    Attributes:
        name, code: as those of :class:`Scan`.
    """

    name = "quarters"
    code = 3

    def steps(self, height: int, width: int) -> Iterator[QuarterStep]:
        """The sets of positions in the order of coding; together they visit every position once."""
        for place, (row, column) in enumerate(PLACES):
            rows, columns = (height - row + 1) // 2, (width - column + 1) // 2
            most = max(1, SET_POSITIONS // max(1, columns))
            for top in range(0, rows if columns else 0, most):
                yield QuarterStep(place, top, min(most, rows - top), columns)


ORDERS: dict[str, Scan | Quarters] = {**SCANS, Quarters.name: Quarters()}
#: The code, in a file, of models that code all positions in parallel.
PARALLEL = 2


def scan_name(code: int) -> str:
    """Return the name of the scan with a file's ``code``, also of an unknown one."""
    return {PARALLEL: "parallel", **{scan.code: scan.name for scan in ORDERS.values()}}.get(code, f"unknown ({code})")


def get_scan(name: str) -> Scan | Quarters:
    """Return the scan called ``name``.

    Raises:
        ConfigError: no scan has that name.
    """
    if name not in ORDERS:
        raise ConfigError("model.scan", name, ORDERS)
    return ORDERS[name]
