"""Checkpoints over many images: in parallel, resumable, one bad image does not end it.

The row of a finished image goes to ``ROWS/HASH.json``, where HASH is of the pixels, of the model's weights and of the
device. A repeated run takes it from there; another model, image or device is another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jointiq.coding.fingerprint import weights_digest
from jointiq.coding.load import load_model
from jointiq.data.images import named_images, read_image
from jointiq.errors import DataError, UserError
from jointiq.evaluation.complexity import complexity
from jointiq.evaluation.evaluator import evaluate_image
from jointiq.evaluation.metrics import Image
from jointiq.evaluation.pictures import PICTURE, PictureFolder
from jointiq.evaluation.pool import results
from jointiq.evaluation.rd import RDCurve, Row, curve_from_rows
from jointiq.files import write_text
from jointiq.models.base import LearnedCodec

#: Raised when the rows themselves change, so that old ones are not taken for new.
ROWS_VERSION = 1


@dataclass(frozen=True)
class Job:
    """One image through one checkpoint; ``rows``, ``pictures``: where row and decoded picture are kept, if at all."""

    checkpoint: str
    name: str
    path: Path
    device: str
    rows: Path | None = None
    pictures: PictureFolder | None = None


@dataclass(frozen=True)
class Done:
    """The row of a job (``reused``: taken from an earlier run), or what went wrong."""

    job: Job
    row: Row | None = None
    reused: bool = False
    problem: str | None = None


def evaluate_checkpoints(
    checkpoints: Sequence[str],
    images: Sequence[Path],
    name: str,
    description: str = "",
    device: str = "cpu",
    advance: Callable[[Done], object] = lambda done: None,
    workers: int = 1,
    rows: Path | None = None,
    pictures: PictureFolder | None = None,
) -> RDCurve:
    """Evaluate each checkpoint on every image; one RD point per checkpoint.

    An image that fails with any checkpoint is left out of every point, so that all are means over the same images; the
    curve's ``about["failed"]`` then says what failed (``checkpoint``, ``image``) and why (``problem``).

    Args:
        checkpoints: training checkpoints or exported models.
        images: image files.
        name: the curve's name.
        description: kept in the RD file.
        device: where the networks run.
        advance: called with every finished image (a progress bar's tick).
        workers: processes. With several, encoding and decoding times are those of a shared machine.
        rows: folder that keeps the rows of finished images for a repeated run; None keeps nothing.
        pictures: keeps the decoded pictures; None keeps none.

    Raises:
        DataError: nothing to evaluate on, or every image failed.
        UserError: a checkpoint that cannot be opened.
    """
    if not images:
        raise DataError("no test images to evaluate on")
    for checkpoint in checkpoints:
        # Here, where the error can still stop everything, and not in a worker.
        _model(checkpoint, device)
    named = named_images(images)
    jobs = [Job(checkpoint, at, path, device, rows, pictures) for checkpoint in checkpoints for at, path in named]
    done: dict[tuple[str, str], Done] = {}
    for one in results(run_job, jobs, workers):
        done[one.job.checkpoint, one.job.name] = one
        advance(one)
    failed = [one for one in done.values() if one.problem]
    bad = {one.job.name for one in failed}
    good = [at for at, _ in named if at not in bad]
    if not good:
        raise DataError(f"every image failed; the first, {failed[0].job.name}: {failed[0].problem}")
    points = [(checkpoint, [_row(done[checkpoint, at]) for at in good]) for checkpoint in checkpoints]
    curve = curve_from_rows(name, points, description)
    problems = [{"checkpoint": one.job.checkpoint, "image": one.job.name, "problem": one.problem} for one in failed]
    return curve.with_about({**curve.about, "failed": problems}) if problems else curve


def with_complexity(curve: RDCurve, device: str, repeats: int, step: Callable[[str], object]) -> RDCurve:
    """The same curve with what each checkpoint costs for an image of 768x512 (:mod:`jointiq.evaluation.complexity`).

    The whole model's numbers become columns of the results; those of its parts go to ``about["complexity"]``.

    Args:
        curve: of :func:`evaluate_checkpoints`.
        device: where the networks run.
        repeats: timed runs of encoder and decoder; 0 counts parameters and multiplications only.
        step: hears what comes next (a progress bar's tick).
    """
    costs = []
    for checkpoint in curve.parameter:
        step(Path(checkpoint).name)
        costs.append(complexity(_model(checkpoint, device), repeats=repeats))
    columns: dict[str, list[Any]] = {}
    for cost in costs:
        for key, value in cost.columns().items():
            columns.setdefault(key, []).append(value)
    # Seconds an image are there already, as means over the images that were coded.
    new = {key: tuple(values) for key, values in columns.items() if key not in curve.results and None not in values}
    details = {str(at): cost.as_dict() for at, cost in zip(curve.parameter, costs, strict=True)}
    return replace(curve, results={**curve.results, **new}, about={**curve.about, "complexity": details})


def run_job(job: Job) -> Done:
    """Evaluate the job's image, unless an earlier run did; never raises for one bad image."""
    try:
        model, image = _model(job.checkpoint, job.device), read_image(job.path)
        file = None if job.rows is None else job.rows / f"{_digest(job, image)}.json"
        row = None if file is None else _finished(file, job)
        if row is not None:
            return Done(job, row, reused=True)
        measured, decoded = evaluate_image(model, job.checkpoint, job.name, image)
        row = asdict(measured)
        if job.pictures is not None:
            row[PICTURE] = job.pictures.keep(decoded.image, job.checkpoint, job.name)
        # A decoder that went astray is to be looked at again.
        if file is not None and measured.latents_equal:
            write_text(file, json.dumps(row, allow_nan=False) + "\n")
        return Done(job, row)
    except (UserError, OSError, ValueError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Done(job, problem=reason)


def _model(checkpoint: str, device: str) -> LearnedCodec:
    return _load(checkpoint, device, _written(checkpoint))


def _written(checkpoint: str) -> int:
    path = Path(checkpoint)
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=1)
def _load(checkpoint: str, device: str, _written: int) -> LearnedCodec:
    """One model at a time, as the jobs of a checkpoint come one after the other."""
    return load_model(checkpoint, device=device)


@lru_cache(maxsize=1)
def _weights(checkpoint: str, device: str, written: int) -> str:
    return weights_digest(_load(checkpoint, device, written))


def _row(done: Done) -> Row:
    assert done.row is not None
    return done.row


def _digest(job: Job, image: Image) -> str:
    weights = _weights(job.checkpoint, job.device, _written(job.checkpoint))
    made_by = {"model": weights, "device": job.device, "rows": ROWS_VERSION, "shape": image.shape}
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()[:32]


def _finished(file: Path, job: Job) -> Row | None:
    """The stored row under the job's names; None if there is none, or if a picture that is wanted is missing."""
    try:
        row: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(row, dict):
        return None
    row = {**row, "checkpoint": job.checkpoint, "image": job.name}
    row.pop(PICTURE, None)
    if job.pictures is not None:
        picture = job.pictures.path(job.checkpoint, job.name)
        if not picture.is_file():
            return None
        row[PICTURE] = job.pictures.recorded(picture)
    return row
