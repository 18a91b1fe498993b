"""Steps of the demo: code images to real files and back, and compare with JPEG and JPEG 2000 at the nearest rate.

:mod:`jointiq.commands.demo` calls them in order.
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
from jointiq.evaluation.codecs.anchors import CODECS, mean_curve, nearest_rate, point_row
from jointiq.evaluation.metrics import Image, mean
from jointiq.evaluation.models import image_row
from jointiq.evaluation.plots.picture_grid import GridRow, picture_grid
from jointiq.evaluation.plots.rd_plot import rd_plot
from jointiq.evaluation.rd import ImageRow, Row, curve_from_rows, rows_as_csv, write_rd
from jointiq.files import write_bytes, write_text
from jointiq.models.base import LearnedCodec

NAME = "JointIQ-Net"
ANCHORS = (CODECS["jpeg_420"], CODECS["jpeg2000"])
#: Called after each picture, for a progress bar.
Advance = Callable[[], object]
#: Largest difference of two decoders' pictures in 8-bit levels: float networks may round differently by one.
MAX_LEVELS = 1


@dataclass(frozen=True)
class CodedImage:
    """An original (uint8, (H, W, 3)), its coded file and the encoder's result."""

    name: str
    original: Image
    file: Path
    encoded: Encoded


@dataclass(frozen=True)
class Measured:
    """A decoded image: its row, the picture and I's own output (both uint8, (H, W, 3)), and its bit map (h, w)."""

    coded: CodedImage
    row: ImageRow
    picture: Image
    mid: Image
    bits: NDArray[np.floating]


@dataclass(frozen=True)
class DemoRow:
    """A row of the demo's table: one image (or the mean) and one codec; None where a codec has no such number."""

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

    @classmethod
    def of(cls, codec: str, row: Row) -> DemoRow:
        """Return the table row of an image's measured ``row``."""
        values: dict[str, Any] = {key: row.get(key) for key in cls.__dataclass_fields__}
        return cls(**{**values, "codec": codec})


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
    """Run ``jointiq decode FILES PICTURES --checkpoint CKPT``, so that encoder and decoder share nothing but files.

    Pictures of an earlier demo are removed first.

    Raises:
        UserError: the decoder failed; its own message is above.
    """
    for stale in pictures.glob("*.png"):
        stale.unlink()
    command = [sys.executable, "-m", "jointiq.commands.codec", "decode", str(files), str(pictures)]
    code = subprocess.run([*command, "--checkpoint", str(checkpoint), "--device", "cpu"], check=False).returncode
    if code:
        raise UserError(f"decoding in a separate process failed with exit code {code}")


def bit_map(model: LearnedCodec, image: Image) -> NDArray[np.floating]:
    """Return the bits of each position of the latent y, summed over channels, (h, w)."""
    with torch.inference_mode():
        nats = -model(to_tensor(image, model.device))["log_likelihoods"]["y"][0].double().sum(dim=0)
    return (nats / np.log(2.0)).cpu().numpy()


def measure_files(
    model: LearnedCodec, coded: Sequence[CodedImage], pictures: Path, checkpoint: str, advance: Advance
) -> list[Measured]:
    """Measure the pictures that the separate process decoded.

    The files are decoded here once more, for I's own output, the latents and the decoding time.

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
        row = image_row(checkpoint, item.name, item.original, item.encoded, decoded, picture)
        if levels > MAX_LEVELS or not row.latents_equal:
            raise UserError(
                f"{item.name}: two decoders disagree (pictures by {levels} levels, latents equal: {row.latents_equal})"
            )
        measured.append(Measured(item, row, picture, decoded.x_mid, bit_map(model, item.original)))
        advance()
    return measured


def table_rows(measured: Sequence[Measured], advance: Advance) -> list[DemoRow]:
    """Return the row of each image, below it those of the anchors at the nearest rate, and at the end all means."""
    rows = []
    for item in measured:
        rows.append(DemoRow.of(NAME, asdict(item.row)))
        for codec in ANCHORS:
            point = nearest_rate(codec, item.coded.original, item.row.bpp)
            rows.append(DemoRow.of(codec.label, point_row(item.coded.name, point)))
            advance()
    codecs = dict.fromkeys(row.codec for row in rows)
    return rows + [_mean_row(codec, [row for row in rows if row.codec == codec]) for codec in codecs]


def _mean_row(codec: str, rows: Sequence[DemoRow]) -> DemoRow:
    numbers = [key for key in DemoRow.__dataclass_fields__ if key not in ("image", "codec")]
    means: dict[str, Any] = {key: mean(getattr(row, key) for row in rows) for key in numbers}
    return DemoRow(image="mean", codec=codec, **{**means, "bytes": round(means["bytes"])})


def demo_table(rows: Sequence[DemoRow]) -> Table:
    """Return the rows as a table."""
    table = Table(
        "Held-out photographs: real files, anchors at the nearest rate",
        ("image", "codec", "bytes", "bpp est.", "payload", "file", "PSNR dB", "MS-SSIM", "enc s", "dec s"),
        left=2,
        optional=("bpp est.", "payload", "dec s", "enc s"),
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
    """Return the row of the picture grid for an image."""
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
