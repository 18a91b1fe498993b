"""What is known at a position, written from the design and not from the code under test."""

import itertools


def known_positions(name, row, column, width):
    """What the design says is known: raster past; in wavefront order only what is in the wave's past as well."""
    for r in range(row + 1):
        for c in range(width):
            if (c < column) if r == row else (name == "raster" or c < column + 2 * (row - r)):
                yield r, c


def clip(value, low, high):
    return max(low, min(high, value))


#: The number of each place of a 2x2 block, by the parity of row and column.
PLACE = {(0, 0): 0, (1, 1): 1, (0, 1): 2, (1, 0): 3}


def quarter_step(row, column, channel):
    """The step of ``quarters``, 0 to 7, that codes a symbol."""
    return (2 * PLACE[row % 2, column % 2] - channel) % 8


def known_in_quarters(y_hat, step):
    """y_hat (M, H, W) as a step of ``quarters`` knows it: zero where it is coded in this step or later."""
    known = y_hat.clone()
    for m, row, column in itertools.product(*map(range, y_hat.shape)):
        if quarter_step(row, column, m) >= step:
            known[m, row, column] = 0
    return known
