"""Plots and picture grids."""

import warnings

# Names may hold characters that the font lacks; a box stands for each.
warnings.filterwarnings("ignore", r"Glyph .* missing from")
#: Characters of a name that leave room for the plot.
_LONGEST = 60


def drawable(text: str) -> str:
    """Return a name as Matplotlib can draw it: one line, not too long, bytes that are no text as ``\\udcff``."""
    line = " ".join(text.encode(errors="backslashreplace").decode().split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
