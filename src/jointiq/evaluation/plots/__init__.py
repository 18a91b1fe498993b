"""Plots and picture grids, and how names are written in them."""

import warnings

# A character that the font lacks is drawn as a box.
warnings.filterwarnings("ignore", r"Glyph .* missing from")
#: Longest name that leaves room for the plot, in characters.
_LONGEST = 60


def drawable(text: str) -> str:
    """Return a name as Matplotlib can draw it: one line, not too long, bytes that are no text as ``\\udcff``."""
    line = " ".join(text.encode(errors="backslashreplace").decode().split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
