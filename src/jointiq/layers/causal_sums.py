"""Weighted sums over everything already known, in time linear in the number of positions.

The weight of a known value depends on its offset from the current position, clipped to +-K (global context, JointIQ-Net
section 4.3). So the known area falls into regions of constant weight, and each region is a few look-ups in prefix sums:

              c-K    c    c+K
        +------+-----------+------+
        | box  |  column   | box  |   rows r-K and above: 2-D prefix sums, column prefix sums
    r-K +------+-----------+------+
        | row  |  single   | row  |   rows r-K+1 .. r-1: row prefix sums, single values
      r +------+-----+.....+......+
        | row  |  s. | current position, then the unknown

In wavefront order the known area ends on the right along a slanted edge; the box beyond it is a running sum along the
wave.

The same code serves floats (float64) and the integer network: with integers the single values are multiplied in
float64, where every product and sum stays below 2^53 and is exact, and the rest in int64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from jointiq.bitstream.scan import Scan, ScanStep, grid_rows
from jointiq.bitstream.tables import Device

_CPU = torch.device("cpu")
_P = ParamSpec("_P")
_T = TypeVar("_T")


def constant(make: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorator: fixed tensors of a size and device, made once, and constants for a compiler.

    It looks through a cached function, and so that is wrapped.
    """
    cached: Callable[..., _T] = lru_cache(maxsize=8)(torch.inference_mode(False)(make))

    @torch.compiler.assume_constant_result
    @wraps(make)
    def get(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return cached(*args, **kwargs)

    return get


@constant
def tap_is_known(scan: Scan, K: int, device: Device = _CPU) -> Tensor:
    """Which of the (K + 1, 2K + 1) clipped offsets (rows above, columns -K .. K) the scan ever knows: bool."""
    known = [[scan.is_known(drow, dcolumn) for dcolumn in range(-K, K + 1)] for drow in range(K + 1)]
    return torch.tensor(known, device=device)


@constant
def pair_index(scan: Scan, K: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """For all (current, other) positions: flat clipped offset, and whether the other is known; (P, P) each."""
    rows, columns = (
        grid.flatten() for grid in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    drow = rows[:, None] - rows
    dcolumn = columns - columns[:, None]
    reach = width if scan.slant is None else scan.slant * drow
    known = ((drow == 0) & (dcolumn < 0)) | ((drow > 0) & (dcolumn < reach))
    index = drow.clamp(0, K) * (2 * K + 1) + dcolumn.clamp(-K, K) + K
    return index, known


@constant
def dense_index(scan: Scan, K: int, height: int, width: int, device: Device = _CPU) -> Tensor:
    """The offsets of :func:`pair_index`, one after the other, (P * P,); behind the last one where nothing is known."""
    index, known = pair_index(scan, K, height, width)
    return torch.where(known, index, (K + 1) * (2 * K + 1)).flatten().to(device)


@constant
def region_counts(scan: Scan, K: int, height: int, width: int, device: Device = _CPU) -> Tensor:
    """How many known positions share each clipped offset: int64 (height * width, (K + 1)(2K + 1))."""
    counts = torch.zeros(height, width, K + 1, 2 * K + 1, dtype=torch.int64)
    row = torch.arange(height).view(-1, 1)
    column = torch.arange(width)
    left = (column - K + 1).clamp(min=0)
    right_limit = (width - column - K).clamp(min=0)
    known = tap_is_known(scan, K)
    for drow in range(K + 1):
        # Rows that share this offset: one, or all that are K and more above.
        rows = (row >= drow).long() if drow < K else (row - K + 1).clamp(min=0)
        counts[..., drow, 0] = rows * left
        for dcolumn in range(-K + 1, K):
            if known[drow, K + dcolumn]:
                counts[..., drow, K + dcolumn] = rows * ((column + dcolumn >= 0) & (column + dcolumn < width))
        if drow == 0:
            continue
        if scan.slant is None:
            counts[..., drow, -1] = rows * right_limit
        elif drow < K:
            counts[..., drow, -1] = rows * right_limit.clamp(max=max(0, scan.slant * drow - K))
        else:
            above = torch.arange(height).view(-1, 1)
            reach = torch.where(above >= K, torch.minimum(right_limit, scan.slant * above - K), 0)
            counts[..., drow, -1] = reach.cumsum(0)
    return counts.flatten(2).flatten(0, 1).to(device)


class CausalSums:
    """Sums of weight x value over the known positions of a grid that fills up as decoding goes on.

    Args:
        scan: order of coding.
        K: clip of the offsets.
        weights: ((K + 1)(2K + 1), C), zero where nothing is known; its dtype (float64 or int64) is that of the sums.
        height, width: size of the grid.

    ``write(step, values)`` records the values of a coded step; ``read(step)`` returns the sums of the next one. An
    encoder calls ``write_grid`` once and may then read any step.
    """

    def __init__(self, scan: Scan, K: int, weights: Tensor, height: int, width: int) -> None:
        self.scan, self.K, self.height, self.width = scan, K, height, width
        self.channels = weights.shape[1]
        self.weights = weights.view(K + 1, 2 * K + 1, self.channels)
        self.float_weights = self.weights.double()
        # From row r-K+1 downwards: as_strided walks a buffer in one direction only.
        self.left_weights = self.weights[:K, :1].flip(0)
        self.right_weights = self.weights[1:K, -1:].flip(0)
        self.reach = K if scan.slant is None else max(K, scan.slant * K)
        # One shape for all buffers: K rows of zeros above, K - 1 columns of zeros to the left, room to the right where
        # a prefix sum goes on with its last value.
        rows, columns = height + K, (K - 1) + width + 1 + self.reach
        shape = (rows, columns, self.channels)
        self.single = torch.zeros(shape, dtype=torch.float64, device=weights.device)
        self.row_sum = torch.zeros(shape, dtype=weights.dtype, device=weights.device)
        self.column_sum = torch.zeros_like(self.row_sum)
        self.box_sum = torch.zeros_like(self.row_sum)
        self._slanted_grid: Tensor | None = None

    @classmethod
    def of_grid(cls, scan: Scan, K: int, weights: Tensor, values: Tensor) -> Tensor:
        """All sums of a known grid: values (H, W, C), weights (taps, C) -> (H, W, C)."""
        height, width, _ = values.shape
        sums = cls(scan, K, weights, height, width)
        sums.write_grid(values)
        return torch.stack([sums.read(step) for step in grid_rows(height, width)])

    def _view(self, buffer: Tensor, step: ScanStep, drow: int, dcolumn: int, *axes: tuple[int, int, int]) -> Tensor:
        """Return the entries of a buffer at an offset from each position: (*axis sizes, step.count, C)."""
        return step.view(buffer, drow + self.K, dcolumn + self.K - 1, *axes)

    def write(self, step: ScanStep, values: Tensor) -> None:
        """Record the values (step.count, C) of a step just coded."""
        self._view(self.single, step, 0, 0).copy_(values)
        values = values.to(self.row_sum.dtype)
        torch.add(self._view(self.column_sum, step, -1, 0), values, out=self._view(self.column_sum, step, 0, 0))
        row_sum = self._view(self.row_sum, step, 0, 1)
        torch.add(self._view(self.row_sum, step, 0, 0), values, out=row_sum)
        torch.add(self._view(self.box_sum, step, -1, 1), row_sum, out=self._view(self.box_sum, step, 0, 1))
        if step.column == self.width - 1:
            row, end = step.row + self.K, self.K - 1 + self.width
            for prefix in (self.row_sum, self.box_sum):
                prefix[row, end + 1 :] = prefix[row, end]

    def write_grid(self, values: Tensor) -> None:
        """Record a whole grid (H, W, C)."""
        K, height, width = self.K, self.height, self.width
        start, end = K - 1, K - 1 + width
        self.single[K:, start:end] = values
        values = values.to(self.row_sum.dtype)
        self.column_sum[K:, start:end] = values.cumsum(0)
        self.row_sum[K:, start + 1 : end + 1] = values.cumsum(1)
        self.row_sum[K:, end + 1 :] = self.row_sum[K:, end : end + 1]
        self.box_sum[K:] = self.row_sum[K:].cumsum(0)
        if self.scan.slant is not None:
            slant = self.scan.slant
            slanted = values.new_zeros(height, width + slant, self.channels)
            for row in range(K, height):
                shift = start + slant * K
                slanted[row, :width] = slanted[row - 1, slant:] + self.row_sum[row, shift : shift + width]
                slanted[row, width:] = self.box_sum[row, end]
            self._slanted_grid = slanted

    def read(self, step: ScanStep) -> Tensor:
        """Sums over what is known at each position of a step: (step.count, C)."""
        K, weights = self.K, self.weights
        near = 2 * K - 1
        singles = self._view(self.single, step, 0, -K + 1, (K - 1, 0, 1)) * self.float_weights[0, 1:K, None]
        total = singles.sum(0)
        for drow in range(1, K):
            singles = self._view(self.single, step, -drow, -K + 1, (near, 0, 1)) * self.float_weights[drow, 1:-1, None]
            total += singles.sum(0)
        result = total.to(weights.dtype)
        rows = self._view(self.row_sum, step, -K + 1, -K + 1, (K, 1, 0))
        result += (rows * self.left_weights).sum(0)
        result += self._right_rows(step)
        columns = self._view(self.column_sum, step, -K, -K + 1, (near, 0, 1))
        result += (columns * weights[K, 1:-1, None]).sum(0)
        result += self._view(self.box_sum, step, -K, -K + 1) * weights[K, 0]
        result += (self._far_edge(step) - self._view(self.box_sum, step, -K, K)) * weights[K, -1]
        return result

    def _right_rows(self, step: ScanStep) -> Tensor:
        """Rows r-K+1 .. r-1 from column c+K to the end of what is known."""
        K, slant = self.K, self.scan.slant
        nearest = 1 if slant is None else K // slant + 1
        count = K - nearest
        if slant is None:
            edge = self._row_ends(self.row_sum, step, -K + 1, (count, 1, 0))
        else:
            edge = self._view(self.row_sum, step, -K + 1, slant * (K - 1), (count, 1, -slant))
        inside = self._view(self.row_sum, step, -K + 1, K, (count, 1, 0))
        return ((edge - inside) * self.right_weights[:count]).sum(0)

    def _row_ends(self, buffer: Tensor, step: ScanStep, drow: int, *axes: tuple[int, int, int]) -> Tensor:
        """Prefix sums of whole rows, ``drow`` from each position of a step."""
        ends = ScanStep(step.row, self.width, step.count, step.drow, 0)
        return self._view(buffer, ends, drow, 0, *axes)

    def _far_edge(self, step: ScanStep) -> Tensor:
        """Sum over everything known in rows r-K and above: (step.count, C)."""
        K, slant = self.K, self.scan.slant
        if slant is None:
            return self._row_ends(self.box_sum, step, -K)
        if self._slanted_grid is not None:
            return self._slanted_grid[step.row, step.column : step.column + step.count]
        edge = self.row_sum.new_zeros(step.count, self.channels)
        last = step.row + step.count - 1 - K
        if last >= 0:
            rows = torch.arange(last + 1, device=edge.device)
            columns = (step.column + slant * step.row - slant * rows).clamp(max=self.width)
            along_wave = self.row_sum[rows + K, columns + K - 1].cumsum(0)
            skip = max(0, K - step.row)
            edge[skip:] = along_wave[max(0, step.row - K) :]
        return edge
