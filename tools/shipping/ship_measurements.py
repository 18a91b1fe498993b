"""Rate and quality of exported models on test images, from real files, and the checks before they are shipped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jointiq.console import progress_bar
from jointiq.errors import UserError
from jointiq.evaluation import measuring
from jointiq.evaluation.models import QUALITIES, evaluate_checkpoints
from jointiq.evaluation.rd import MS_SSIM, PSNR, RDCurve

#: Loss of 16-bit transforms against 32-bit ones that counts as none, at every quality: dB of PSNR, share of the bits.
PSNR_LOSS = 0.005
BPP_LOSS = 1e-4


@dataclass(frozen=True)
class Means:
    """Means over the test images at a quality.

    Attributes:
        quality: of the model.
        bpp: whole files over pixels.
        psnr: dB, on 8-bit RGB.
        ms_ssim: linear; None where all images are too small for it.
        encoding_time, decoding_time: seconds an image.
    """

    quality: float
    bpp: float
    psnr: float
    ms_ssim: float | None
    encoding_time: float
    decoding_time: float

    def as_dict(self) -> dict[str, Any]:
        """Return the means, ready for JSON."""
        return asdict(self)


#: Means of a model by rising quality.
Curve = tuple[Means, ...]


def measure_exports(
    files: Sequence[Path], images: Sequence[Path], device: str, workers: int, rows: Path
) -> dict[Path, Curve]:
    """Encode and decode every image with every model at every one of its qualities to real files, with a progress bar.

    Args:
        files: exported models.
        images: the test images.
        device: device of the networks.
        workers: number of processes.
        rows: folder that keeps the measurements, so that a repeated command continues.

    Raises:
        UserError: an image could not be coded with a model, or came back with other latents.
    """
    with progress_bar() as progress:
        task = progress.add_task("measure", total=len(files) * len(QUALITIES) * len(images), note="")

        def advance(done: measuring.Measured) -> None:
            at = Path(done.maker.checkpoint)
            progress.update(task, advance=1, note=f"{at.parent.name}/{Path(done.maker.name).name} {done.image}")

        curves = {
            file: evaluate_checkpoints([str(file)], images, "shipped", "", device, advance, workers, rows)
            for file in files
        }
    return {file: _means(curve) for file, curve in curves.items()}


def _means(curve: RDCurve) -> Curve:
    """Return the means of a model's curve.

    Raises:
        UserError: an image could not be coded, or came back with other latents.
    """
    for failed in curve.about.get("failed", ()):
        raise UserError(f"{failed['image']} cannot be coded with {_label(failed['checkpoint'])}: {failed['problem']}")
    for row in curve.images:
        if not row["latents_equal"]:
            raise UserError(f"{row['image']} comes back with other latents from {_label(row['checkpoint'])}")
    columns = curve.results
    qualities = {row["checkpoint"]: row["quality"] for row in curve.images}
    points = [
        Means(
            quality=qualities[name],
            bpp=columns["bpp"][i],
            psnr=columns[PSNR][i],
            ms_ssim=columns[MS_SSIM][i] if MS_SSIM in columns else None,
            encoding_time=columns["encoding_time"][i],
            decoding_time=columns["decoding_time"][i],
        )
        for i, name in enumerate(curve.parameter)
    ]
    # The curve's points are in the order of their bits.
    return tuple(sorted(points, key=lambda point: point.quality))


def loses_nothing(half: Curve, full: Curve) -> bool:
    """Return whether 16-bit transforms equal 32-bit ones up to :data:`PSNR_LOSS` and :data:`BPP_LOSS`."""
    return all(
        there.psnr - here.psnr < PSNR_LOSS and here.bpp - there.bpp <= BPP_LOSS * there.bpp
        for here, there in zip(half, full, strict=True)
    )


def refuse_disorder(name: str, curve: Curve) -> None:
    """Refuse a model whose qualities are not in order.

    Raises:
        UserError: at a quality it takes no more bits than at the one before it, or gives no better pictures for them.
    """
    for before, after in itertools.pairwise(curve):
        for value, unit, key in (("bpp", "bpp", "bpp"), ("PSNR", "dB", "psnr")):
            low, high = getattr(before, key), getattr(after, key)
            if high <= low:
                raise UserError(
                    f"{name} has {high:.4f} {unit} at quality {after.quality:g}, {low:.4f} at {before.quality:g}; "
                    f"allowed: a model whose {value} rises with the quality"
                )


def _label(file: str) -> str:
    path = Path(file)
    return f"{path.stem} ({path.parent.name})"
