"""Keep decoded pictures beside the measurements, for the report's viewer.

:meth:`PictureFolder.keep` writes a picture as PNG (lossless), and returns its path for the column ``picture`` of the
image's row. The path is relative to the folder of the RD file, so that results and pictures can be moved together.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointiq.data.images import write_png
from jointiq.evaluation.metrics import Image

#: Column of a per-image row.
PICTURE = "picture"
_LONGEST = 80


@dataclass(frozen=True)
class PictureFolder:
    """The folder of decoded pictures, ``folder``, and that of the RD file that will name them, ``rd_folder``."""

    folder: Path
    rd_folder: Path

    def path(self, maker: str, image: str) -> Path:
        """Return the file for the image of that name as decoded by ``maker`` (a checkpoint, or codec and setting)."""
        return self.folder / _safe(maker) / f"{_safe(image)}.png"

    def recorded(self, path: Path) -> str:
        """Return ``path`` as rows have it: relative to the RD file, with forward slashes."""
        return Path(os.path.relpath(path.resolve(), self.rd_folder.resolve())).as_posix()

    def keep(self, picture: Image, maker: str, image: str) -> str:
        """Write ``picture`` (uint8, (H, W, 3)) and return its path as rows have it.

        Raises:
            UserError: the file cannot be written.
        """
        path = self.path(maker, image)
        write_png(path, picture)
        return self.recorded(path)


def picture_path(rd_file: Path, row: Mapping[str, Any]) -> Path | None:
    """Return the file of a row's decoded picture; None where none was kept."""
    recorded = row.get(PICTURE)
    if not isinstance(recorded, str) or not recorded:
        return None
    return Path(os.path.normpath(rd_file.resolve().parent / recorded))


def _safe(name: str) -> str:
    """Return a file name for ``name``; different names have different ones."""
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", name.removesuffix(".png")).strip("._")
    if len(safe) > _LONGEST:
        end = safe[-_LONGEST:]
        safe = end.partition("_")[2] or end  # no half word at its beginning
    if safe == name.removesuffix(".png"):
        return safe
    # File names may have bytes that are no text.
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
    return f"{safe}-{digest}"
