"""Rate and quality of exported models on test images, from real files, and the checks before they are shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jointiq.console import progress_bar
from jointiq.errors import UserError
from jointiq.evaluation import measuring
from jointiq.evaluation.models import evaluate_checkpoints
from jointiq.evaluation.rd import MS_SSIM, PSNR

#: Loss of 16-bit transforms against 32-bit ones that counts as none: dB of PSNR, and share of the bits.
PSNR_LOSS = 0.005
BPP_LOSS = 1e-4


@dataclass(frozen=True)
class Means:
    """Means over the test images.

    Attributes:
        bpp: whole files over pixels.
        psnr: dB, on 8-bit RGB.
        ms_ssim: linear; None where all images are too small for it.
        encoding_time, decoding_time: seconds an image.
    """

    bpp: float
    psnr: float
    ms_ssim: float | None
    encoding_time: float
    decoding_time: float

    def as_dict(self) -> dict[str, Any]:
        """Return the means, ready for JSON."""
        return asdict(self)


def measure_exports(
    files: Sequence[Path], images: Sequence[Path], device: str, workers: int, rows: Path
) -> dict[Path, Means]:
    """Encode and decode every image with every model to real files, with a progress bar.

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
        task = progress.add_task("measure", total=len(files) * len(images), note="")

        def advance(done: measuring.Measured) -> None:
            at = Path(done.maker.checkpoint)
            progress.update(task, advance=1, note=f"{at.parent.name}/{at.stem} {done.image}")

        curve = evaluate_checkpoints(list(map(str, files)), images, "shipped", "", device, advance, workers, rows)
    for failed in curve.about.get("failed", ()):
        raise UserError(f"{failed['image']} cannot be coded with {_label(failed['checkpoint'])}: {failed['problem']}")
    for row in curve.images:
        if not row["latents_equal"]:
            raise UserError(f"{row['image']} comes back with other latents from {_label(row['checkpoint'])}")
    columns = curve.results
    return {
        Path(file): Means(
            bpp=columns["bpp"][i],
            psnr=columns[PSNR][i],
            ms_ssim=columns[MS_SSIM][i] if MS_SSIM in columns else None,
            encoding_time=columns["encoding_time"][i],
            decoding_time=columns["decoding_time"][i],
        )
        for i, file in enumerate(curve.parameter)
    }


def loses_nothing(half: Means, full: Means) -> bool:
    """Return whether 16-bit transforms equal 32-bit ones up to :data:`PSNR_LOSS` and :data:`BPP_LOSS`."""
    return full.psnr - half.psnr < PSNR_LOSS and half.bpp - full.bpp <= BPP_LOSS * full.bpp


def refuse_disorder(measured: Sequence[Means], names: Sequence[str]) -> None:
    """Refuse models that are not in the order of quality.

    Raises:
        UserError: a model takes no more bits than the one before it, or gives no better pictures for them.
    """
    for i in range(1, len(measured)):
        before, after = measured[i - 1], measured[i]
        for value, unit, key in (("bpp", "bpp", "bpp"), ("PSNR", "dB", "psnr")):
            low, high = getattr(before, key), getattr(after, key)
            if high <= low:
                raise UserError(
                    f"{names[i]} has {high:.4f} {unit}, {names[i - 1]} before it {low:.4f}; allowed: checkpoints whose "
                    f"{value} rises from one to the next"
                )


def _label(file: str) -> str:
    path = Path(file)
    return f"{path.stem} ({path.parent.name})"
