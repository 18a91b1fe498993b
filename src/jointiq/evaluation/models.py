"""Evaluate trained models with real files: encode to bytes, decode the bytes, compare the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jointiq.coding.image_codec import Decoded, Encoded, decode_image, encode_image, same_latents
from jointiq.coding.load import load_model
from jointiq.coding.refine import RECIPE, Recipe, refine_image, require_refinable
from jointiq.data.images import named_images
from jointiq.errors import DataError, UserError
from jointiq.evaluation.complexity import complexity
from jointiq.evaluation.measuring import Measured, measure
from jointiq.evaluation.metrics import Image, ms_ssim, psnr
from jointiq.evaluation.pictures import PictureFolder
from jointiq.evaluation.rd import ImageRow, RDCurve, Row, curve_from_rows
from jointiq.models.base import LearnedCodec

#: Default qualities at which a model of all rates is evaluated.
QUALITIES = (1, 15, 29, 43, 57, 72, 86, 100)


def image_row(
    checkpoint: str, name: str, image: Image, encoded: Encoded, decoded: Decoded, picture: Image | None = None
) -> ImageRow:
    """Return the row of an image: an original (uint8, (H, W, 3)) compared with its decoded file.

    ``picture`` is the decoded picture to compare; default: the one in ``decoded``.
    """
    if encoded.estimated_bits is None:
        raise ValueError("the image was encoded without the likelihood estimate")
    picture = decoded.image if picture is None else picture
    height, width = image.shape[:2]
    pixels = height * width
    bpp_y = encoded.estimated_bits["y"] / pixels
    bpp_z = sum(bits for key, bits in encoded.estimated_bits.items() if key != "y") / pixels
    return ImageRow(
        checkpoint=checkpoint,
        image=name,
        width=width,
        height=height,
        bytes=len(encoded.data),
        bpp=8 * len(encoded.data) / pixels,
        bpp_payload=8 * encoded.payload_bytes / pixels,
        bpp_exact=None if encoded.integer_bits is None else sum(encoded.integer_bits.values()) / pixels,
        bpp_estimate=bpp_y + bpp_z,
        bpp_y=bpp_y,
        bpp_z=bpp_z,
        psnr=psnr(image, picture),
        psnr_mid=psnr(image, decoded.x_mid),
        ms_ssim=ms_ssim(image, picture),
        encoding_time=encoded.seconds,
        decoding_time=decoded.seconds,
        latents_equal=same_latents(encoded, decoded),
    )


def evaluate_image(
    model: LearnedCodec, checkpoint: str, name: str, image: Image, refine: int = 0, recipe: Recipe = RECIPE
) -> tuple[ImageRow, Decoded]:
    """Encode and decode an image (uint8, (H, W, 3)); ``checkpoint`` and ``name`` label its row.

    Args:
        refine: steps in which its latents are refined by ``recipe``.
    """
    if refine:
        refined = refine_image(model, image, refine, recipe, estimate=True)
        if refined.interrupted:
            raise KeyboardInterrupt
        encoded = refined.best.encoded
    else:
        encoded = encode_image(model, image)
    decoded = decode_image(model, encoded.data)
    return image_row(checkpoint, name, image, encoded, decoded), decoded


@dataclass(frozen=True)
class ModelMaker:
    """A trained model as a :class:`jointiq.evaluation.measuring.Maker`.

    Attributes:
        checkpoint: its file.
        device: device of its networks.
        name: its name in rows.
        quality: of a model of all rates; None: a model of one rate.
        refine: steps in which latents are refined by ``recipe``.
    """

    checkpoint: str
    device: str
    name: str
    quality: float | None = None
    refine: int = 0
    recipe: Recipe = RECIPE

    @property
    def labels(self) -> Mapping[str, Any]:
        """Columns of every row with name, quality and steps of refinement."""
        return {
            "checkpoint": self.name,
            **({} if self.quality is None else {"quality": self.quality}),
            **({"refine": self.refine} if self.refine else {}),
        }

    @property
    def model(self) -> LearnedCodec:
        """The network, kept in memory while its images are coded one after the other.

        Raises:
            UserError: it cannot be opened.
        """
        model = _load(self.checkpoint, self.device, _written(self.checkpoint))
        return model if self.quality is None else model.at(self.quality)

    def identity(self) -> dict[str, Any]:
        """Return a hash of its file, the device and the quality.

        Raises:
            UserError: the file cannot be read.
        """
        return {
            "model": _digest(self.checkpoint, _written(self.checkpoint)),
            "device": self.device,
            **({} if self.quality is None else {"quality": self.quality}),
            **({"refine": self.refine, "recipe": asdict(self.recipe)} if self.refine else {}),
        }

    def measure(self, name: str, image: Image) -> tuple[Row, Image | None]:
        """Return an :class:`ImageRow` as a dictionary, and the decoded picture."""
        row, decoded = evaluate_image(self.model, self.name, name, image, self.refine, self.recipe)
        return {**asdict(row), **self.labels}, decoded.image


def _written(checkpoint: str) -> int:
    path = Path(checkpoint)
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=1)
def _load(checkpoint: str, device: str, _written: int) -> LearnedCodec:
    return load_model(checkpoint, device=device)


@cache
def _digest(checkpoint: str, _written: int) -> str:
    try:
        with open(checkpoint, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{checkpoint}: {error.strerror or error}") from error


def makers_of(
    checkpoints: Sequence[str], device: str, qualities: Sequence[float] | None = None, refine: int = 0
) -> list[ModelMaker]:
    """Return a maker for each point of ``checkpoints``: one for a model of one rate, else one for each quality.

    Args:
        qualities: of models of all rates; None: :data:`QUALITIES`.
        refine: steps in which latents are refined.

    Raises:
        UserError: a checkpoint that cannot be opened, or refined.
        ConfigError: qualities for a model of one rate, or a quality out of range.
    """
    makers: list[ModelMaker] = []
    for checkpoint in checkpoints:
        alone = ModelMaker(checkpoint, device, checkpoint, refine=refine)
        model = alone.model  # fails before anything is measured if it cannot be opened
        if refine:
            require_refinable(model)
        if model.quality is None and qualities is None:
            makers.append(alone)
            continue
        for quality in qualities or QUALITIES:
            makers.append(replace(alone, name=f"{checkpoint} q{quality:g}", quality=model.at(quality).quality))
    return makers


def evaluate_checkpoints(
    checkpoints: Sequence[str],
    images: Sequence[Path],
    name: str,
    description: str = "",
    device: str = "cpu",
    advance: Callable[[Measured], object] = lambda measured: None,
    workers: int = 1,
    rows: Path | None = None,
    pictures: PictureFolder | None = None,
    qualities: Sequence[float] | None = None,
    refine: int = 0,
) -> RDCurve:
    """Evaluate each checkpoint on every image; return a curve with a point (of models of all rates, several) for each.

    An image that fails with any checkpoint is left out of every point, so that all are means over the same images. The
    curve's ``about["failed"]`` then lists ``checkpoint``, ``image`` and ``problem``.

    Args:
        checkpoints: training checkpoints or exported models.
        images: image files.
        name: the curve's name.
        description: for the RD file.
        device: device of the networks.
        qualities: of models of all rates; see :func:`makers_of`, also for ``refine``.
        advance, workers, pictures: see :func:`jointiq.evaluation.measuring.measure`; ``rows`` is its ``cache``.

    Raises:
        DataError: nothing to evaluate on, or every image failed.
        UserError: a checkpoint that cannot be opened.
    """
    if not images:
        raise DataError("no test images to evaluate on")
    makers = makers_of(checkpoints, device, qualities, refine)
    measured = measure(makers, named_images(images), rows, workers, advance, pictures)
    failed = [one for of_maker in measured for one in of_maker if one.problem]
    bad = {one.image for one in failed}
    points = [
        (maker.name, [one.row for one in of_maker if one.row is not None and one.image not in bad])
        for maker, of_maker in zip(makers, measured, strict=True)
    ]
    if not points[0][1]:
        raise DataError(f"every image failed; the first, {failed[0].image}: {failed[0].problem}")
    curve = curve_from_rows(name, points, description)
    problems = [{"checkpoint": one.maker.name, "image": one.image, "problem": one.problem} for one in failed]
    return curve.with_about({**curve.about, "failed": problems}) if problems else curve


def with_complexity(
    curve: RDCurve, makers: Sequence[ModelMaker], repeats: int, step: Callable[[str], object]
) -> RDCurve:
    """Return the curve with the complexity of each point's model (:mod:`jointiq.evaluation.complexity`) at 768x512.

    The whole model's numbers become columns of the results; those of its parts go to ``about["complexity"]``.

    Args:
        curve: of :func:`evaluate_checkpoints`.
        makers: the model of each point.
        repeats: timed runs of encoder and decoder; 0: count parameters and multiplications only.
        step: called with the name of each model, for a progress bar.
    """
    costs = []
    for maker in makers:
        step(Path(maker.name).name)
        costs.append(complexity(maker.model, repeats=repeats))
    columns: dict[str, list[Any]] = {}
    for cost in costs:
        for key, value in cost.columns().items():
            columns.setdefault(key, []).append(value)
    # Coding times are in the curve already, as means over the coded images.
    new = {key: tuple(values) for key, values in columns.items() if key not in curve.results and None not in values}
    details = {str(at): cost.as_dict() for at, cost in zip(curve.parameter, costs, strict=True)}
    return replace(curve, results={**curve.results, **new}, about={**curve.about, "complexity": details})
