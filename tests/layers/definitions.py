"""What is known at a position, written from the design and not from the code under test."""


def known_positions(name, row, column, width):
    """What the design says is known: raster past; in wavefront order only what is in the wave's past as well."""
    for r in range(row + 1):
        for c in range(width):
            if (c < column) if r == row else (name == "raster" or c < column + 2 * (row - r)):
                yield r, c


def clip(value, low, high):
    return max(low, min(high, value))


#: In which of the four steps of ``quarters`` a position is coded, by the parity of its row and column.
QUARTER_STEP = {(0, 0): 0, (1, 1): 1, (0, 1): 2, (1, 0): 3}


def quarter_step(row, column):
    """The step of ``quarters`` that codes a position."""
    return QUARTER_STEP[row % 2, column % 2]


def known_in_quarters(row, column, height, width):
    """What is known at a position in the order ``quarters``: all that earlier steps have coded, anywhere."""
    step = quarter_step(row, column)
    return [(r, c) for r in range(height) for c in range(width) if quarter_step(r, c) < step]
