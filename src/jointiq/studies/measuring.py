"""Code the images of a study with its trained models, by way of real files; what is measured is not measured again.

The rows of a model and a set (:mod:`jointiq.studies.rows`) lie in the run's folder, ``measured/SET.json``, and count as
long as they are newer than the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jointiq.coding.image_codec import decode_latents, encode_image
from jointiq.coding.load import load_model
from jointiq.console import progress_bar
from jointiq.data.image_sets import ImageSet
from jointiq.data.images import read_image
from jointiq.errors import DataError
from jointiq.evaluation.evaluator import evaluate_image
from jointiq.evaluation.pool import results
from jointiq.models.base import LearnedCodec
from jointiq.studies.context import Trained
from jointiq.studies.rows import read_rows, write_rows


@dataclass(frozen=True)
class Task:
    """A checkpoint, the images to code with it, and the file for the rows; ``decode`` as in the study."""

    checkpoint: Path
    images: ImageSet
    decode: str
    file: Path
    device: str

    def is_done(self) -> bool:
        """Whether the rows of all images are there and newer than the checkpoint."""
        if not self.file.is_file() or self.file.stat().st_mtime_ns < self.checkpoint.stat().st_mtime_ns:
            return False
        return read_rows(self.file, self.images) is not None


def row_file(trained: Trained, images: ImageSet, decode: str) -> Path:
    """The file for the rows of a training on a set."""
    part = "" if decode == "all" else "-bits"
    return trained.folder / "measured" / f"{images.digest}{part}.json"


def measure(tasks: Sequence[Task], at_once: int) -> None:
    """Do the tasks that are not done, ``at_once`` processes at a time.

    Raises:
        DataError: a decoder missed its encoder's latents, or an image cannot be read.
        UserError: a checkpoint that cannot be opened.
    """
    waiting = [task for task in tasks if not task.is_done()]
    if not waiting:
        return
    with progress_bar() as progress:
        bar = progress.add_task("code images", total=len(waiting), note="")
        for task in results(run_task, waiting, at_once):
            progress.update(bar, advance=1, note=task.checkpoint.parent.parent.name)


def run_task(task: Task) -> Task:
    """Code the task's images and write the rows: each an :class:`ImageRow`, or of :func:`bits_row`.

    Raises:
        DataError: a decoder missed its encoder's latents.
    """
    model = load_model(task.checkpoint, task.device)
    rows: list[dict[str, Any]] = []
    for path in task.images.paths:
        if task.decode == "all":
            row = asdict(evaluate_image(model, task.checkpoint.parent.parent.name, path.name, read_image(path))[0])
        else:
            row = bits_row(model, path, decode=not rows)
        if row.get("latents_equal") is False:
            raise DataError(f"{task.checkpoint}: the decoder did not arrive at the encoder's latents of {path.name}")
        rows.append(row)
    write_rows(task.file, task.images, rows)
    return task


def bits_row(model: LearnedCodec, path: Path, decode: bool) -> dict[str, Any]:
    """Size of an image's real file, without the picture that would come of it.

    Args:
        decode: read the file again, which raises where it does not give the encoder's latents (by their checksum).
    """
    image = read_image(path)
    encoded = encode_image(model, image, estimate=False)
    if decode:
        decode_latents(model, encoded.data)
    height, width = image.shape[:2]
    size = len(encoded.data)
    return {
        "image": path.name,
        "width": width,
        "height": height,
        "bytes": size,
        "bpp": 8 * size / (height * width),
        "encoding_time": encoded.seconds,
    }
