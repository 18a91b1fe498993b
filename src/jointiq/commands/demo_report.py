"""What the demo shows: images to real files and back, beside JPEG and JPEG 2000 at the nearest rate.

Each step is a function; ``src/jointiq/commands/demo.py`` strings them together.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jointiq.coding.image_codec import Encoded, decode_image, encode_image, to_tensor
from jointiq.console import Table, number
from jointiq.data.images import read_image
from jointiq.errors import UserError
from jointiq.evaluation.codecs.anchors import CODECS, mean_curve, nearest_rate
from jointiq.evaluation.evaluator import measure
from jointiq.evaluation.metrics import Image, mean
from jointiq.evaluation.plots.picture_grid import GridRow, picture_grid
from jointiq.evaluation.plots.rd_plot import rd_plot
from jointiq.evaluation.rd import ImageRow, curve_from_rows, rows_as_csv, write_rd
from jointiq.files import write_bytes, write_text
from jointiq.models.base import LearnedCodec

NAME = "JointIQ-Net"
ANCHORS = (CODECS["jpeg_420"], CODECS["jpeg2000"])
#: Called after each picture: a progress bar's tick.
Advance = Callable[[], object]
#: Two float runs of the same network may round differently; more than one level apart is a defect.
MAX_LEVELS = 1


@dataclass(frozen=True)
class CodedImage:
    """An original (uint8, (H, W, 3)), the file it became and what the encoder reported."""

    name: str
    original: Image
    file: Path
    encoded: Encoded


@dataclass(frozen=True)
class Measured:
    """A coded image back from its file: measurements, the picture, I's own output (both uint8), where the bits went."""

    coded: CodedImage
    row: ImageRow
    picture: Image
    mid: Image
    bits: NDArray[np.floating]


@dataclass(frozen=True)
class DemoRow:
    """A line of the demo's table: one image (or the mean) through one codec; None where a codec has no such number."""

    image: str
    codec: str
    bytes: int
    bpp_estimate: float | None
    bpp_payload: float | None
    bpp: float
    psnr: float
    ms_ssim: float | None
    encoding_time: float
    decoding_time: float


def encode_files(model: LearnedCodec, images: Sequence[Path], folder: Path, advance: Advance) -> list[CodedImage]:
    """Encode every image into ``folder`` as ``STEM.jiq``; files of an earlier demo are removed first."""
    for stale in folder.glob("*.jiq"):
        stale.unlink()
    coded = []
    for path in images:
        original = read_image(path)
        encoded = encode_image(model, original)
        file = folder / f"{path.stem}.jiq"
        write_bytes(file, encoded.data)
        coded.append(CodedImage(path.stem, original, file, encoded))
        advance()
    return coded


def decode_in_another_process(files: Path, pictures: Path, checkpoint: Path) -> None:
    """Run ``python -m src.codec decode FILES PICTURES --checkpoint CKPT``: nothing is shared but files.

    Pictures of an earlier demo are removed first.

    Raises:
        UserError: the decoder failed; its own message is above.
    """
    for stale in pictures.glob("*.png"):
        stale.unlink()
    command = [sys.executable, "-m", "jointiq.commands.codec", "decode"]
    arguments = [
        str(files.resolve()),
        str(pictures.resolve()),
        "--checkpoint",
        str(checkpoint.resolve()),
        "--device",
        "cpu",
    ]
    code = subprocess.run([*command, *arguments], check=False).returncode
    if code:
        raise UserError(f"decoding in a separate process failed with exit code {code}")


def bit_map(model: LearnedCodec, image: Image) -> NDArray[np.floating]:
    """Give the bits the model spends on each position of the latent y, summed over channels: (h, w)."""
    with torch.inference_mode():
        nats = -model(to_tensor(image, model.device))["log_likelihoods"]["y"][0].double().sum(dim=0)
    return (nats / np.log(2.0)).cpu().numpy()


def measure_files(
    model: LearnedCodec, coded: Sequence[CodedImage], pictures: Path, checkpoint: str, advance: Advance
) -> list[Measured]:
    """Measure the pictures that the separate process decoded.

    The files are decoded here once more, for I's own output, the latents and the decoder's seconds.

    Raises:
        UserError: the two processes' pictures differ by more than ``MAX_LEVELS``, or the latents are not the encoder's.
    """
    measured = []
    for item in coded:
        decoded = decode_image(model, item.file.read_bytes())
        picture = read_image(pictures / f"{item.name}.png")
        if picture.shape != item.original.shape:
            raise UserError(f"{item.name} came back with another size: {picture.shape} for {item.original.shape}")
        levels = int(np.abs(picture.astype(np.int16) - decoded.image).max())
        row = measure(checkpoint, item.name, item.original, item.encoded, decoded, picture)
        if levels > MAX_LEVELS or not row.latents_equal:
            raise UserError(
                f"{item.name}: two decoders disagree (pictures by {levels} levels, latents equal: {row.latents_equal})"
            )
        measured.append(Measured(item, row, picture, decoded.x_mid, bit_map(model, item.original)))
        advance()
    return measured


def table_rows(measured: Sequence[Measured], advance: Advance) -> list[DemoRow]:
    """Give each image's line, the anchors at the nearest rate below it, and every codec's mean at the end."""
    rows = []
    for item in measured:
        rows.append(_our_row(item.row))
        for codec in ANCHORS:
            point = nearest_rate(codec, item.coded.original, item.row.bpp)
            rows.append(
                DemoRow(
                    image=item.coded.name,
                    codec=codec.label,
                    bytes=point.bytes,
                    bpp_estimate=None,
                    bpp_payload=None,
                    bpp=point.bpp,
                    psnr=point.psnr,
                    ms_ssim=point.ms_ssim,
                    encoding_time=point.encoding_time,
                    decoding_time=point.decoding_time,
                )
            )
            advance()
    codecs = dict.fromkeys(row.codec for row in rows)
    return rows + [_mean_row(codec, [row for row in rows if row.codec == codec]) for codec in codecs]


def _our_row(row: ImageRow) -> DemoRow:
    shared = {key: value for key, value in asdict(row).items() if key in DemoRow.__dataclass_fields__}
    return DemoRow(codec=NAME, **shared)


def _mean_row(codec: str, rows: Sequence[DemoRow]) -> DemoRow:
    numbers = [key for key in DemoRow.__dataclass_fields__ if key not in ("image", "codec")]
    means: dict[str, Any] = {key: mean(getattr(row, key) for row in rows) for key in numbers}
    return DemoRow(image="mean", codec=codec, **{**means, "bytes": round(means["bytes"])})


def demo_table(rows: Sequence[DemoRow]) -> Table:
    """Lay the rows out for people; anchors stand at the rate nearest to ours."""
    table = Table(
        "Held-out photographs: real files, anchors at the nearest rate",
        ("image", "codec", "bytes", "bpp est.", "payload", "file", "PSNR dB", "MS-SSIM", "enc s", "dec s"),
        left=2,
    )
    for i, row in enumerate(rows):
        if i and row.image != rows[i - 1].image:
            table.end_group()
        table.rows.append(
            (
                row.image,
                row.codec,
                str(row.bytes),
                number(row.bpp_estimate, 4),
                number(row.bpp_payload, 4),
                number(row.bpp, 4),
                number(row.psnr, 2),
                number(row.ms_ssim, 4),
                number(row.encoding_time, 2),
                number(row.decoding_time, 2),
            )
        )
    return table


def write_report(
    folder: Path, measured: Sequence[Measured], rows: Sequence[DemoRow], title: str, advance: Advance
) -> list[Path]:
    """Write table.md, table.csv, rd.json (+ .csv), the anchors' RD files, the RD plot and the picture grid.

    Returns:
        The paths written.
    """
    write_text(folder / "table.md", demo_table(rows).markdown())
    write_text(folder / "table.csv", rows_as_csv([asdict(row) for row in rows]))
    ours = curve_from_rows(NAME, [(measured[0].row.checkpoint, [item.row for item in measured])], title)
    written = [folder / "table.md", folder / "table.csv", *write_rd(folder / "rd.json", ours)]
    images = [(item.coded.name, item.coded.original) for item in measured]
    curves = [mean_curve(codec, images, advance=advance) for codec in ANCHORS]
    for codec, curve in zip(ANCHORS, curves, strict=True):
        written += write_rd(folder / "anchors" / f"{codec.name}.json", curve)
    right = max(4 * ours.bpp[0], *(2 * curve.bpp[0] for curve in curves))
    written += rd_plot(folder / "rd", [ours], curves, title=title, bpp_range=(0.0, right))
    written.append(picture_grid(folder / "pictures.png", [grid_row(item) for item in measured], title))
    return written


def grid_row(item: Measured) -> GridRow:
    """Give a line of the picture grid."""
    return GridRow(
        name=item.coded.name,
        original=item.coded.original,
        mid=item.mid,
        output=item.picture,
        bits=item.bits,
        bpp=item.row.bpp,
        psnr_mid=item.row.psnr_mid,
        psnr=item.row.psnr,
    )
