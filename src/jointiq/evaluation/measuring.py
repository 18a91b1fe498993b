"""Measure images with models and real codecs, in parallel and resumable; an image that fails does not stop the others.

The row of an image is cached as ``CACHE/HASH.json``. The hash is of the pixels and of all that decides the row: a
model's weights and device, or a codec's version, options and setting. A repeated measurement reuses the row, whatever
the names of model and image.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Protocol

from jointiq.data.images import pixel_hash, read_image
from jointiq.errors import ConfigError, UserError, ignore_import_warnings
from jointiq.evaluation.metrics import Image
from jointiq.evaluation.pictures import PICTURE, PictureFolder
from jointiq.evaluation.rd import Row
from jointiq.files import write_text
from jointiq.runtime import usable_cores, visible_gpus

#: Version of the rows, to be increased when they change, so that old ones are not reused.
ROWS_VERSION = 2

#: Numbers of maker and image, and the row or the problem.
_Result = tuple[tuple[int, int], Row | None, str | None]

_FAILURES = (UserError, OSError, ValueError, RuntimeError, MemoryError)


class Maker(Protocol):
    """A model, or a real codec at a setting, that makes rows; it is sent to worker processes."""

    @property
    def name(self) -> str:
        """Name of its folder of decoded pictures."""

    @property
    def labels(self) -> Mapping[str, Any]:
        """Columns of every row that name the maker."""

    def identity(self) -> Mapping[str, Any]:
        """Return all that decides the rows, as values for JSON."""

    def measure(self, name: str, image: Image) -> tuple[Row, Image | None]:
        """Code an image (uint8, (H, W, 3)); return its row, and the decoded picture if there is one."""


@dataclass(frozen=True)
class Measured:
    """An image's row by a maker (``reused``: from the cache), or the problem that occurred."""

    maker: Any
    image: str
    row: Row | None = None
    reused: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class _Job:
    """An image to be measured by a maker; ``place`` are the numbers of maker and image."""

    place: tuple[int, int]
    maker: Maker
    name: str
    path: Path
    key: str
    cache: Path | None
    pictures: PictureFolder | None

    @property
    def file(self) -> Path | None:
        return None if self.cache is None else self.cache / f"{self.key}.json"

    @property
    def picture(self) -> str:
        """The picture's name, with the beginning of the hash, so that a row is reused only with its own picture."""
        return f"{self.name.removesuffix('.png')}-{self.key[:8]}"


def measure(
    makers: Sequence[Maker],
    images: Sequence[tuple[str, Path]],
    cache: Path | None = None,
    workers: int = 1,
    advance: Callable[[Measured], object] = lambda measured: None,
    pictures: PictureFolder | None = None,
) -> list[list[Measured]]:
    """Measure every image with every maker.

    Args:
        makers: models, or codecs at settings. If their ``device`` is ``cuda``, all GPUs are used, one by each process.
        images: name and file of each.
        cache: folder of the rows for a repeated measurement; None: no cache.
        workers: number of processes. With several, times are those of a shared machine.
        advance: called with every row and every failure as they come, for a progress bar.
        pictures: folder for the decoded pictures; a cached row then counts only with its picture. None: not kept.

    Returns:
        For each maker the result of each image, in the order given.

    Raises:
        UserError: a maker's files cannot be read.
    """
    found: dict[tuple[int, int], Measured] = {}

    def settle(place: tuple[int, int], measured: Measured) -> None:
        found[place] = measured
        advance(measured)

    pixels = [_attempt(_pixels, path) for _, path in images]
    waiting = []
    for i, maker in enumerate(makers):
        made_by = json.dumps({**maker.identity(), "rows": ROWS_VERSION}, sort_keys=True)
        for j, (name, path) in enumerate(images):
            digest, problem = pixels[j]
            key = hashlib.sha256(f"{made_by}{digest}".encode()).hexdigest()[:32]
            job = _Job((i, j), maker, name, path, key, cache, pictures)
            row = _stored(job)
            if problem or row:
                settle(job.place, Measured(maker, name, row, row is not None, problem))
            else:
                waiting.append(job)
    for (i, j), row, problem in _in_processes(waiting, workers):
        settle((i, j), Measured(makers[i], images[j][0], row, problem=problem))
    return [[found[i, j] for j in range(len(images))] for i in range(len(makers))]


def _pixels(path: Path) -> str:
    return pixel_hash(read_image(path))


def _attempt(action: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """Return the result of ``action`` and None, or None and the error in one line."""
    try:
        return action(*arguments), None
    except _FAILURES as error:
        return None, " ".join(str(error).split()) or type(error).__name__


def _stored(job: _Job) -> Row | None:
    """Return the cached row with the job's names; None if it, or the picture that is wanted, is missing."""
    if job.file is None:
        return None
    try:
        row: Any = json.loads(job.file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(row, dict):
        return None
    row = {**row, **job.maker.labels, "image": job.name}
    if job.pictures is not None:
        picture = job.pictures.path(job.maker.name, job.picture)
        if not picture.is_file():
            return None
        row[PICTURE] = job.pictures.recorded(picture)
    return row


def _run(job: _Job) -> _Result:
    return job.place, *_attempt(_code, job)


def _code(job: _Job) -> Row:
    row, picture = job.maker.measure(job.name, read_image(job.path))
    # A row with wrongly decoded latents is not cached, so that it is measured again.
    if job.file is not None and row.get("latents_equal") is not False:
        write_text(job.file, json.dumps(row, allow_nan=False) + "\n")
    if job.pictures is None or picture is None:
        return row
    return {**row, PICTURE: job.pictures.keep(picture, job.maker.name, job.picture)}


def _in_processes(jobs: Sequence[_Job], workers: int) -> Iterator[_Result]:
    """Yield the results of jobs as they come, from processes with one thread each; one worker is this process."""
    workers = min(workers, len(jobs))
    if workers < 2:
        yield from map(_run, jobs)
        return
    gpus = visible_gpus() if any(getattr(job.maker, "device", None) == "cuda" for job in jobs) else []
    context = get_context("spawn")  # a forked PyTorch may hang
    dealt = context.SimpleQueue()
    for number in range(workers if gpus else 0):
        dealt.put(gpus[number % len(gpus)])
    pool = ProcessPoolExecutor(workers, context, _begin, (dealt,) if gpus else ())
    try:
        for future in as_completed([pool.submit(_run, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(dealt: SimpleQueue[str] | None = None) -> None:
    """Prepare a worker process: one thread, and one of the GPUs in the queue ``dealt``."""
    if dealt is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = dealt.get()
    ignore_import_warnings()
    import torch

    torch.set_num_threads(1)


def worker_count(value: Any) -> int:
    """Return the number of workers for a config's ``workers``: a whole number from 1 up, or null for one per CPU core.

    Raises:
        ConfigError: another value.
    """
    if value is None:
        return usable_cores()
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("workers", value, "null or a whole number from 1 up")
    return value
