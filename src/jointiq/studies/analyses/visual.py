"""JointIQ-Net, Figures 2 and 11 to 14: crops of decoded pictures at about the same rate, beside real codecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.coding.load import load_model
from jointiq.console import Table, number
from jointiq.data.image_sets import ImageSet
from jointiq.data.images import read_image
from jointiq.evaluation.codecs.anchors import nearest_rate
from jointiq.evaluation.codecs.pillow import find_codecs
from jointiq.evaluation.codecs.programs import PROGRAMS
from jointiq.evaluation.metrics import Image
from jointiq.evaluation.plots.rd_plot import new_figure, save
from jointiq.studies.context import Context, Findings, Ours, steps_text
from jointiq.studies.training import Training

OPTIONS = {"runs", "codecs", "crop", "target_bpp", "count", "images"}


@dataclass(frozen=True)
class Shown:
    """A picture and its numbers; ``bpp`` and ``psnr`` are None for the original."""

    name: str
    picture: Image
    bpp: float | None = None
    psnr: float | None = None
    ms_ssim: float | None = None


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Show each value's ``image``, coded by the model (or at the quality) of its ``run`` nearest to its ``target_bpp``.

    Options: ``runs``, ``codecs`` (families), ``crop`` (height, width, from the middle), and ``target_bpp``, the rate at
    which other images are shown: those named in ``images`` (without suffix), of every set that has them; or else, where
    no image of the values is among the test images, the first ``count``.
    """
    found = find_codecs(list(options.get("codecs", [])), dict.fromkeys(PROGRAMS)).codecs
    codecs = [codec for codec in found if codec.name not in ("jpeg_444", "jpeg2000_db", "avif_420", "heif_420")]
    findings = Findings(
        notes=[
            "Of our models, or of the qualities of one for all rates, that is shown whose file of this image comes "
            "nearest to the paper's rate, and the codecs are then set to the size of our file: their numbers are "
            "comparable with each other, ours with the paper's only as far as the rates agree. A pilot's network is "
            "far from the paper's."
        ]
    )
    for images in context.sets:
        for name, path, target in _wanted(context, images, options):
            if not context.of(name):
                continue
            one, quality, row = _nearest(context, name, images, path, target)
            pictures = _pictures(context, one, quality, row, path, codecs)
            findings.tables.append(_table(name, path, target, pictures))
            figure = _figure(context, one, path, pictures, options.get("crop", (192, 256)))
            findings.figures.append((figure, f"{path.stem}: middle of the picture, at about {row['bpp']:.3f} bpp."))
            for value in context.scale.values:
                if (value.details.get("image"), value.details.get("run")) == (path.stem, name):
                    text = f"{row['bpp']:.4f} bpp; {row['psnr']:.2f} dB; MS-SSIM {number(row['ms_ssim'], 4)}"
                    findings.ours.append(Ours(value.name, text, dict(row), str(images), steps_text([one])))
    return findings


def _wanted(context: Context, images: ImageSet, options: Mapping[str, Any]) -> list[tuple[str, Path, float]]:
    """Return the run, image file and target rate (bpp) of each figure."""
    by_stem = {path.stem: path for path in images.paths}
    details = [value.details for value in context.scale.values if value.details.get("image") in by_stem]
    if details:
        return [(str(one["run"]), by_stem[one["image"]], float(one["target_bpp"])) for one in details]
    shown = images.paths[: int(options.get("count", 1))]
    if "images" in options:
        shown = tuple(by_stem[stem] for stem in options["images"] if stem in by_stem)
    return [(name, path, float(options.get("target_bpp", 0.2))) for name in options.get("runs", []) for path in shown]


def _nearest(
    context: Context, name: str, images: ImageSet, path: Path, target: float
) -> tuple[Training, float | None, Any]:
    """Return the training, the quality of a model of all rates, and the row of an image nearest to a rate."""
    place = images.paths.index(path)
    rows = [
        (one, quality, context.rows(one, images, quality)[place])
        for one in context.of(name)
        for quality in context.qualities(one)
    ]
    return min(rows, key=lambda found: abs(found[2]["bpp"] - target))


def _pictures(
    context: Context, one: Training, quality: float | None, row: Any, path: Path, codecs: Sequence[Any]
) -> list[Shown]:
    image = read_image(path)
    model = load_model(one.checkpoint, context.device)
    model = model if quality is None else model.at(quality)
    data = encode_image(model, image, estimate=False).data
    ours = decode_image(model, data).image
    pictures = [Shown("original", image), Shown(one.run.label, ours, row["bpp"], row["psnr"], row["ms_ssim"])]
    for codec in codecs:
        point = nearest_rate(codec, image, row["bpp"])
        pictures.append(Shown(codec.label, point.image, point.bpp, point.psnr, point.ms_ssim))
    return pictures


def _table(run: str, path: Path, target: float, pictures: Sequence[Shown]) -> Table:
    table = Table(f"{path.stem}, {run}, {target:g} bpp aimed at", ("", "bpp", "PSNR dB", "MS-SSIM"))
    for one in pictures[1:]:
        table.rows.append((one.name, number(one.bpp, 4), number(one.psnr, 2), number(one.ms_ssim, 4)))
    return table


def _figure(context: Context, trained: Training, path: Path, pictures: Sequence[Shown], crop: Sequence[int]) -> Any:
    height, width = (min(side, whole) for side, whole in zip(crop, pictures[0].picture.shape, strict=False))
    top, left = ((whole - side) // 2 for side, whole in zip((height, width), pictures[0].picture.shape, strict=False))
    columns = 3
    rows = -(-len(pictures) // columns)
    figure = new_figure(2.5 * columns, rows * (2.5 * height / width + 0.35))
    for i, one in enumerate(pictures):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(one.picture[top : top + height, left : left + width])
        axes.set_title(one.name, fontsize=8, loc="left", parse_math=False)
        axes.set_xlabel("" if one.bpp is None else f"{one.bpp:.3f} bpp, {one.psnr:.2f} dB", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    stem = context.output / f"crops_{trained.run.name}_{path.stem}"
    return save(figure, stem.with_suffix(".png"), dpi=100)
