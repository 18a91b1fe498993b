"""Run anchors over many images: in parallel, resumable, one RD file per codec.

The rows of a finished image go to ``OUTPUT/.rows/CODEC/HASH.json``, where HASH is of the pixels and of everything that
made the rows (version, options, settings). A repeated run takes them from there; another version or setting is another
file. The RD file is written when all images of a codec are done. Where decoded pictures are kept, rows count only
together with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jointiq.data.images import read_image, write_png
from jointiq.errors import DataError, UserError
from jointiq.evaluation.codecs.anchors import Codec, code, point_row
from jointiq.evaluation.metrics import Image
from jointiq.evaluation.pictures import PICTURE, PictureFolder
from jointiq.evaluation.pool import results
from jointiq.evaluation.rd import Row, curve_from_rows, write_rd
from jointiq.files import write_text

#: Raised when the rows themselves change, so that old ones are not taken for new.
ROWS_VERSION = 1


@dataclass(frozen=True)
class Job:
    """One image through all settings of one codec; ``pictures``: where decoded pictures are kept, None for nowhere."""

    codec: Codec
    settings: tuple[float, ...]
    name: str
    path: Path
    folder: Path
    pictures: PictureFolder | None = None


@dataclass(frozen=True)
class Done:
    """The rows of a job (``reused``: taken from an earlier run), or what went wrong."""

    job: Job
    rows: tuple[Row, ...] = ()
    reused: bool = False
    problem: str | None = None


@dataclass
class Anchored:
    """What a run wrote and what failed (``CODEC IMAGE: reason``)."""

    files: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    reused: int = 0


def rows_file(job: Job, image: Image) -> Path:
    """Give the file of an image's rows: its name stands for the pixels and for all that made the rows."""
    made_by = {**job.codec.about(), "settings": job.settings, "rows": ROWS_VERSION, "shape": image.shape}
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    digest.update(image.tobytes())
    return job.folder / ".rows" / job.codec.name / f"{digest.hexdigest()[:32]}.json"


def run_job(job: Job) -> Done:
    """Code the job's image at every setting, unless an earlier run did; never raises for one bad image."""
    try:
        image = read_image(job.path)
        file = rows_file(job, image)
        pictures = _pictures(job, file)
        rows = _finished(file)
        reused = rows is not None and all(path.is_file() for path in pictures)
        if rows is None or not reused:
            points = [code(job.codec, image, setting) for setting in job.settings]
            for path, point in zip(pictures, points, strict=False):
                write_png(path, point.image)
            rows = [point_row(job.name, point) for point in points]
            write_text(file, json.dumps(rows, allow_nan=False) + "\n")
        kept = [{PICTURE: job.pictures.recorded(path)} for path in pictures] if job.pictures else [{}] * len(rows)
        named = ({**row, "image": job.name, **picture} for row, picture in zip(rows, kept, strict=True))
        return Done(job, tuple(named), reused=reused)
    except (UserError, OSError, ValueError, RuntimeError, MemoryError) as error:
        return Done(job, problem=f"{job.codec.name} {job.name}: {' '.join(str(error).split()) or type(error).__name__}")


def _pictures(job: Job, file: Path) -> list[Path]:
    """Give the files of the job's pictures, one per setting: named, like the rows, after the pixels as well."""
    if job.pictures is None:
        return []
    image = f"{job.name.removesuffix('.png')}-{file.stem[:8]}"
    return [job.pictures.path(f"{job.codec.name}_{setting:g}", image) for setting in job.settings]


def _finished(file: Path) -> list[Row] | None:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return rows if isinstance(rows, list) else None


def run_anchors(
    codecs: Sequence[tuple[Codec, tuple[float, ...]]],
    images: Sequence[tuple[str, Path]],
    folder: Path,
    workers: int = 1,
    advance: Callable[[Done], object] = lambda done: None,
    pictures: Path | None = None,
) -> Anchored:
    """Code ``images`` (name, path) with every codec at its settings, and write ``folder/CODEC.json`` (and ``.csv``).

    A codec that fails on an image is reported and gets no RD file: a mean over other images cannot be compared. With
    ``pictures``, a folder, every decoded picture is kept there as PNG and its row's ``picture`` names it.

    Raises:
        DataError: two images with the same name.
        UserError: ``folder`` cannot be written.
    """
    names = [name for name, _ in images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(f"two images are named {twice}; allowed: names that differ")
    kept = PictureFolder(pictures, folder) if pictures else None
    jobs = [Job(codec, settings, name, path, folder, kept) for codec, settings in codecs for name, path in images]
    found: dict[str, dict[str, Done]] = {codec.name: {} for codec, _ in codecs}
    run = Anchored()
    chosen = {codec.name: (codec, settings) for codec, settings in codecs}
    for done in results(run_job, jobs, workers):
        of_codec = found[done.job.codec.name]
        of_codec[done.job.name] = done
        run.reused += done.reused
        if done.problem:
            run.failures.append(done.problem)
        advance(done)
        if len(of_codec) == len(images) and not any(other.problem for other in of_codec.values()):
            codec, settings = chosen[done.job.codec.name]
            run.files += _write(folder, codec, settings, [of_codec[name] for name in names])
    return run


def _write(folder: Path, codec: Codec, settings: Sequence[float], images: Sequence[Done]) -> list[Path]:
    points: list[tuple[Any, list[Row]]] = [
        (setting, [done.rows[i] for done in images]) for i, setting in enumerate(settings)
    ]
    description = f"{codec.version}; knob: {codec.knob}; whole files; PSNR against the original 8-bit RGB"
    curve = curve_from_rows(codec.label, points, description)
    about = {**codec.about(), "settings": list(settings), "quality": "against the original 8-bit RGB, mean over images"}
    return write_rd(folder / f"{codec.name}.json", curve.with_about(about))
