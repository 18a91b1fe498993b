"""The order in which the positions of a latent grid are coded.

``raster``: row by row, as in the paper; one position a step.
``wavefront``: positions with equal t = column + 2 * row form one step. The 4x4 window of a position reaches one column
to the right in the rows above, and such a neighbour has a smaller t, so the positions of one step never see each other
and are coded together: a 32x48 grid takes 110 steps in place of 1536.
``quarters``: eight steps, whatever the size. Each codes an eighth of the channels at every position, other ones at each
of the four places of a 2x2 block (:class:`QuarterStep`).

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

    def take(self, grid: Tensor) -> Tensor:
        """Return the symbols of the step from a grid (rows, columns, C), by position, then by channel: (count * C,)."""
        return grid[self.index(grid.device)].flatten()

    def put(self, grid: Tensor, symbols: Tensor) -> None:
        """Undo :meth:`take`."""
        grid[self.index(grid.device)] = symbols.view(self.count, -1)

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

#: ``quarters``: row and column of each place of a 2x2 block. The second lies diagonally opposite to the first.
PLACES = ((0, 0), (1, 1), (0, 1), (1, 0))
#: ``quarters``: the steps, and groups of channels; a channel m belongs to the group m % GROUPS.
GROUPS = 2 * len(PLACES)
# Most blocks that are coded as one set: it bounds the memory.
SET_BLOCKS = 1 << 11


def group_of(step: int, place: int) -> int:
    """Return the group of channels that a step of ``quarters`` codes at a place of each block."""
    return (2 * place - step) % GROUPS


@dataclass(frozen=True)
class QuarterStep:
    """Symbols that are coded together: at each place of the 2x2 blocks another group of channels (:func:`group_of`).

    Attributes:
        number: of the step, 0 to 7.
        top, bottom: first row of blocks, and the one after the last.
    """

    number: int
    top: int
    bottom: int

    @property
    def blocks(self) -> slice:
        """The rows of blocks, to index a (rows of blocks, ...) tensor."""
        return slice(self.top, self.bottom)

    def parts(self, grid: Tensor) -> list[Tensor]:
        """Return the symbols at each place as views of a grid (rows, columns, M): (rows, columns, channels) each."""
        return [
            grid[2 * self.top + row : 2 * self.bottom : 2, column::2, group_of(self.number, place) :: GROUPS]
            for place, (row, column) in enumerate(PLACES)
        ]

    def take(self, grid: Tensor) -> Tensor:
        """Return the symbols of the set from a grid, by place, row, column, then channel, in one axis."""
        import torch

        return torch.cat([part.flatten() for part in self.parts(grid)])

    def split(self, grid: Tensor, symbols: Tensor) -> list[Tensor]:
        """Return what :meth:`take` gives of a grid of this shape as the symbols at each place, shaped as the parts."""
        parts = self.parts(grid)
        values = symbols.split([part.numel() for part in parts])
        return [value.view(part.shape) for part, value in zip(parts, values, strict=True)]

    def put(self, grid: Tensor, symbols: Tensor) -> None:
        """Undo :meth:`take`."""
        for part, values in zip(self.parts(grid), self.split(grid, symbols), strict=True):
            part.copy_(values)


class Quarters:
    """The order ``quarters``.

    Attributes:
        name, code: as those of :class:`Scan`.
    """

    name = "quarters"
    code = 3

    def steps(self, height: int, width: int) -> Iterator[QuarterStep]:
        """The sets of symbols in the order of coding; together they hold every symbol once."""
        rows, columns = (height + 1) // 2, (width + 1) // 2
        most = max(1, SET_BLOCKS // columns)
        for number in range(GROUPS):
            for top in range(0, rows, most):
                yield QuarterStep(number, top, min(rows, top + most))


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
