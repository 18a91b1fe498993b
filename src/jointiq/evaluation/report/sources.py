"""Read the sources of a report: RD files of models and anchors, and the original images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jointiq.data.images import list_images
from jointiq.errors import DataError
from jointiq.evaluation.comparison import Comparison, CurveFile, compare_pairs, find_compared
from jointiq.evaluation.rd import RDCurve
from jointiq.files import read_json


@dataclass(frozen=True)
class Source:
    """An RD file: its curve, whether it is an anchor, and further texts in the file (``notes``)."""

    path: Path
    curve: RDCurve
    is_anchor: bool
    notes: dict[str, str]

    @property
    def image_names(self) -> list[str]:
        """Names of the images that the curve lists, in the file's order; published curves list none."""
        return list(dict.fromkeys(str(row.get("image")) for row in self.curve.images))


@dataclass(frozen=True)
class Sources:
    """Models, anchors, the BD-rates between them, and ``originals``: image name -> file."""

    models: tuple[Source, ...]
    anchors: tuple[Source, ...]
    comparison: Comparison
    originals: dict[str, Path]

    @property
    def all(self) -> tuple[Source, ...]:
        """All sources, models first."""
        return self.models + self.anchors


def read_sources(results: Sequence[Path], anchors: Sequence[Path], images: Path | None, method: str) -> Sources:
    """Read everything a report needs.

    Args:
        results: folders or RD files of models; folders named ``anchors`` in them hold anchors.
        anchors: folders or RD files of anchors; empty: those in ``results``.
        images: folder of the originals; None: there is none.
        method: of the BD-rates.

    Raises:
        DataError: no RD file of a model, or a file or folder that cannot be read.
    """
    models, against = find_compared(results, anchors)
    taken = {file.path.resolve() for file in against}
    models = [file for file in models if file.path.resolve() not in taken]
    if not models:
        raise DataError("every RD file is that of an anchor; allowed: at least one that --anchors does not name")
    names = {file.curve.name for file in models}
    against = [_renamed(file) if file.curve.name in names else file for file in against]
    ours, theirs = _sources(models, False), _sources(against, True)
    images_named = list(dict.fromkeys(name for source in ours + theirs for name in source.image_names))
    originals = _originals(images, images_named) if images else {}
    return Sources(ours, theirs, compare_pairs(models, against, method), originals)


def _renamed(file: CurveFile) -> CurveFile:
    """Return an anchor with a name that tells it from a model of the same name."""
    return replace(file, curve=replace(file.curve, name=f"{file.curve.name} (anchor)"))


def _sources(files: Sequence[CurveFile], are_anchors: bool) -> tuple[Source, ...]:
    return tuple(Source(file.path, file.curve, are_anchors, _notes(file.path)) for file in files)


def _notes(path: Path) -> dict[str, str]:
    """Return the texts in an RD file beside name and description: status, source, licence, ..."""
    document = read_json(path)
    return {key: text for key, text in document.items() if isinstance(text, str) and key not in ("name", "description")}


def _originals(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the file of each named image in ``folder``: by its path there, else by its file name if that is unique."""
    files = list_images(folder)
    by_path = {file.relative_to(folder).as_posix(): file for file in files}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    found = {}
    for name in names:
        alike = by_name.get(Path(name).name, [])
        if name in by_path or len(alike) == 1:
            found[name] = by_path.get(name) or alike[0]
    if names and not found:
        raise DataError(
            f"{folder}: none of its {len(files)} images is named in the RD files; they name {names[0]}, ..."
        )
    return found
