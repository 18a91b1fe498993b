"""The order in which the positions of a latent grid are coded.

``raster``: row by row, as in the paper; one position a step.
``wavefront``: positions with equal t = column + 2 * row form one step. The 4x4 window of a position reaches one column
to the right in the rows above, and such a neighbour has a smaller t, so the positions of one step never see each other
and are coded together: a 32x48 grid takes 110 steps in place of 1536.

Positions of a step are evenly spaced in a row-major grid, so a step is (first row, first column, count) and the spacing
is (+1 row, ``-step_columns`` columns).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jointiq.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The largest grid: up to here the sums of the exact global context fit their integers.
MAX_POSITIONS = 1 << 18


@dataclass(frozen=True)
class Run:
    """``count`` positions (row + k * drow, column + k * dcolumn), k = 0 .. count - 1."""

    row: int
    column: int
    count: int
    drow: int
    dcolumn: int

    def index(self, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Rows and columns of the positions, for indexing a (height, width, ...) tensor."""
        # Imported late: the header of a file is read without PyTorch.
        import torch

        steps = torch.arange(self.count, device=device)
        return self.row + self.drow * steps, self.column + self.dcolumn * steps


def grid_rows(height: int, width: int) -> Iterator[Run]:
    """Whole rows of the grid: the runs an encoder, which knows every value, works in."""
    for row in range(height):
        yield Run(row, 0, width, 0, 1)


class Scan:
    """Order of coding and what it makes known.

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

    def runs(self, height: int, width: int) -> Iterator[Run]:
        """The steps of the scan, in order; together they visit every position once."""
        if self.slant is None:
            for row in range(height):
                for column in range(width):
                    yield Run(row, column, 1, 0, 1)
            return
        for t in range(width + self.slant * (height - 1)):
            first = max(0, -((width - 1 - t) // self.slant))
            last = min(height - 1, t // self.slant)
            if first == last:
                yield Run(first, t - self.slant * first, 1, 0, 1)
            elif first < last:
                yield Run(first, t - self.slant * first, last - first + 1, 1, -self.slant)

    def is_known(self, drow: int, dcolumn: int) -> bool:
        """Whether the position ``drow`` rows above and ``dcolumn`` columns to the right counts as already known."""
        if drow == 0:
            return dcolumn < 0
        return drow > 0 and (self.slant is None or dcolumn < self.slant * drow)


SCANS = {scan.name: scan for scan in (Scan("raster", 0, None), Scan("wavefront", 1, 2))}
#: The code, in a file, of models whose positions do not wait for each other.
PARALLEL = 2


def scan_name(code: int) -> str:
    """What to call the scan with a file's ``code``, known or not."""
    return {PARALLEL: "parallel", **{scan.code: scan.name for scan in SCANS.values()}}.get(code, f"unknown ({code})")


def get_scan(name: str) -> Scan:
    """The scan called ``name``.

    Raises:
        ConfigError: no scan has that name.
    """
    if name not in SCANS:
        raise ConfigError("model.scan", name, SCANS)
    return SCANS[name]
