"""The rows of a model and a set of images, as they are kept: one for each image, which is known by its pixels.

A set may come in another order or under other file names than when it was measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jointiq.data.image_sets import ImageSet
from jointiq.evaluation.rd import Row
from jointiq.files import write_text

_PIXELS = "pixels"


def write_rows(file: Path, images: ImageSet, rows: Sequence[Row]) -> None:
    """Write the rows of a set, which are in its order, each with the hash of its image."""
    marked = [{**row, _PIXELS: digest} for row, digest in zip(rows, images.hashes, strict=True)]
    write_text(file, json.dumps(marked, allow_nan=False) + "\n")


def read_rows(file: Path, images: ImageSet) -> list[Row] | None:
    """The rows of a set, in its order and under its file names; None where not all are there.

    Rows without the hash of their image, as they were written once, count by file names, where these are the set's.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = [path.name for path in images.paths]
    key, wanted = (_PIXELS, images.hashes) if all(_PIXELS in row for row in rows) else ("image", names)
    known = {row.pop(key): row for row in rows}
    if key == "image" and len(known) < len(rows) or known.keys() != set(wanted):
        return None
    return [{**known[one], "image": name} for one, name in zip(wanted, names, strict=True)]
