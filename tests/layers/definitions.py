"""What is known at a position, written from the design and not from the code under test."""


def known_positions(name, row, column, width):
    """What the design says is known: raster past; in wavefront order only what is in the wave's past as well."""
    for r in range(row + 1):
        for c in range(width):
            if (c < column) if r == row else (name == "raster" or c < column + 2 * (row - r)):
                yield r, c


def clip(value, low, high):
    return max(low, min(high, value))
