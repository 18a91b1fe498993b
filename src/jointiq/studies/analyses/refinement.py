"""What refined latents save (:mod:`jointiq.coding.refine`): bits at equal quality against steps and seconds.

Every model codes every image as its networks do, and refined. Of each image the BD-rate of the refined curve against
the other is one number, so that the image's own difficulty drops out; the mean over images has a 95 % interval.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jointiq.coding.refine import RECIPE, VARIANTS
from jointiq.console import Table, number, progress_bar
from jointiq.data.image_sets import ImageSet
from jointiq.data.images import named_images, read_image, write_png
from jointiq.errors import ConfigError, DataError
from jointiq.evaluation.bd_rate import MIN_POINTS, NoBDRate, bd_rate
from jointiq.evaluation.measuring import Measured, measure
from jointiq.evaluation.models import ModelMaker, makers_of
from jointiq.evaluation.plots.rd_plot import OUR_COLOURS, new_figure, save_all
from jointiq.evaluation.rd import Row, curve_from_rows
from jointiq.studies.context import Context, Findings, Ours, steps_text
from jointiq.studies.plan import Value
from jointiq.studies.statistics import Effect, paired_effect

OPTIONS = {"steps", "variants", "compared", "crop"}


@dataclass(frozen=True)
class Way:
    """A way to encode: a variant of the recipe and its steps; without a variant the networks alone."""

    variant: str | None = None
    steps: int = 0


#: Rows of a system by the way they were coded: for every image those of its models.
Rows = dict[Way, list[list[Row]]]


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Refine the images of every set with every system that has four rates.

    Options: ``steps`` of the variant of the recipe, ``variants`` and the steps at which they are ``compared`` with it,
    ``crop`` (height, width: the middle of every image, because steps take long).
    A value names a run as its ``system``, ``steps`` and perhaps a ``variant``, and counts the bits saved.
    """
    steps, compared = list(options.get("steps", [50, 200])), list(options.get("compared", []))
    variants = [one for one in options.get("variants", []) if one != RECIPE.variant]
    for one in variants:
        if one not in VARIANTS:
            raise ConfigError("analyses.refinement.variants", one, VARIANTS)
    ways = [Way(), *(Way(RECIPE.variant, one) for one in steps)]
    ways += [Way(variant, one) for variant in variants for one in compared]
    findings = Findings(
        notes=[
            "Every file is a real one, and every picture its decoder's. Of each image a curve through its files by all "
            "models of a system, and its BD-rate (PCHIP, PSNR on 8-bit RGB) against the curve of the same models "
            "without refinement; the mean over images with Student's 95 % interval, the same images on both sides. "
            "Seconds are those of the whole encoder."
        ]
    )
    for images in context.sets:
        table = Table(
            f"Refined latents on {images.name}",
            ("system", "variant", "steps", "bits saved, %", "seconds", "images"),
            left=2,
        )
        for system, points in _systems(context).items():
            rows = _measured(context, images, points, ways, options.get("crop"))
            saved = {way: _saved(rows, way) for way in ways[1:]}
            for way, (effect, count) in saved.items():
                seconds = number(_seconds(rows, way), 2)
                table.rows.append((system, str(way.variant), str(way.steps), _text(effect), seconds, str(count)))
            trained = context.of(system)
            findings.ours += [
                _ours(value, saved, str(images), steps_text(trained))
                for value in context.scale.values
                if value.details.get("system") == system and _way(value) in saved
            ]
            findings.figures.append(_figure(context, images, system, rows, saved))
        findings.tables.append(table)
    return findings


def _systems(context: Context) -> dict[str, list[ModelMaker]]:
    """Return the points of each run that has enough of them: models, or qualities of one model.

    Raises:
        DataError: there is no such run.
    """
    found: dict[str, list[ModelMaker]] = {}
    for run in context.scale.runs:
        if not run.refine:
            models = [str(one.checkpoint) for one in context.of(run.name, run.seeds[0])]
            found[run.name] = makers_of(models, context.device, run.qualities)
    found = {name: points for name, points in found.items() if len(points) >= MIN_POINTS}
    if not found:
        raise DataError(f"{context.study.name}: no system has {MIN_POINTS} rates, which a BD-rate needs")
    return found


def _measured(
    context: Context, images: ImageSet, points: Sequence[ModelMaker], ways: Sequence[Way], crop: Sequence[int] | None
) -> Rows:
    """Code all images in every way; what was measured is not measured again.

    Raises:
        DataError: an image cannot be coded.
    """
    files = [
        (name, path if crop is None else _cropped(context, path, crop)) for name, path in named_images(images.paths)
    ]
    makers = [(way, _refining(point, way)) for way in ways for point in points]
    with progress_bar() as progress:
        bar = progress.add_task("refine images", total=len(makers) * len(files), note="")

        def advance(done: Measured) -> None:
            progress.update(bar, advance=1, note=f"{done.maker.refine} steps {done.image}")

        measured = measure([maker for _, maker in makers], files, context.work / "measured", context.jobs, advance)
    rows: Rows = {way: [[] for _ in files] for way in ways}
    for (way, maker), of_maker in zip(makers, measured, strict=True):
        for of_image, done in zip(rows[way], of_maker, strict=True):
            if done.row is None:
                raise DataError(f"{maker.checkpoint}: {done.image}: {done.problem}")
            of_image.append(done.row)
    return rows


def _refining(point: ModelMaker, way: Way) -> ModelMaker:
    if way.variant is None:
        return point
    return replace(point, refine=way.steps, recipe=replace(RECIPE, variant=way.variant))


def _cropped(context: Context, path: Path, crop: Sequence[int]) -> Path:
    """Write the middle of an image to a file of its own, and return that."""
    image = read_image(path)
    height, width = (min(side, most) for side, most in zip(image.shape, crop, strict=False))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    part = image[top : top + height, left : left + width]
    # Images of one name in several folders, or of one name and two suffixes, are several.
    file = context.work / "crops" / f"{path.stem}_{hashlib.sha256(part.tobytes()).hexdigest()[:8]}.png"
    write_png(file, part)
    return file


def _saved(rows: Rows, way: Way) -> tuple[Effect | None, int]:
    """Return the bits saved, in percent, and of how many images; those without a BD-rate are left out."""
    percents = []
    for plain, refined in zip(rows[Way()], rows[way], strict=True):
        anchor, test = (
            curve_from_rows(name, [(row["checkpoint"], [row]) for row in of_image])
            for name, of_image in (("plain", plain), ("refined", refined))
        )
        try:
            percents.append(-bd_rate(anchor, test).percent)
        except NoBDRate:
            continue
    if not percents:
        return None, 0
    return paired_effect([np.array([percents])], [np.zeros((1, len(percents)))]), len(percents)


def _seconds(rows: Rows, way: Way) -> float:
    """Return the mean seconds of encoding an image."""
    return float(np.mean([row["encoding_time"] for of_image in rows[way] for row in of_image]))


def _text(effect: Effect | None) -> str:
    if effect is None:
        return number(None, 2)
    interval = f" ({effect.low:.2f} to {effect.high:.2f})" if np.isfinite(effect.low) else " (one image)"
    return f"{effect.mean:.2f}{interval}"


def _way(value: Value) -> Way:
    return Way(str(value.details.get("variant", RECIPE.variant)), int(value.details.get("steps", 0)))


def _ours(value: Value, saved: Mapping[Way, tuple[Effect | None, int]], measured_on: str, steps: str) -> Ours:
    effect, count = saved[_way(value)]
    numbers = {} if effect is None or count < 2 else {"mean": effect.mean, "low": effect.low, "high": effect.high}
    return Ours(value.name, f"{_text(effect)} %", {**numbers, "images": count}, measured_on, steps)


def _figure(
    context: Context, images: ImageSet, system: str, rows: Rows, saved: Mapping[Way, tuple[Effect | None, int]]
) -> tuple[Path, str]:
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    for colour, variant in zip(OUR_COLOURS, dict.fromkeys(way.variant for way in saved), strict=False):
        points = []
        for way, (effect, _) in saved.items():
            if way.variant == variant and effect is not None:
                half = effect.high - effect.mean if np.isfinite(effect.high) else 0.0
                points.append((_seconds(rows, way), effect.mean, half, way.steps))
        if points:
            seconds_, means, halves, _ = zip(*sorted(points), strict=True)
            axes.errorbar(
                seconds_, means, halves, fmt="o-", color=colour, label=variant, capsize=2, markersize=4, linewidth=1
            )
            for second, value, _, steps in points:
                axes.annotate(str(steps), (second, value), (4, -10), textcoords="offset points", fontsize=7)
    axes.set_xlabel("seconds an image, the whole encoder")
    axes.set_ylabel("bits saved (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"{system} on {images.name}, with 95 % intervals; steps beside the points", loc="left", fontsize=9)
    stem = context.output / f"refined_{system}_{images.slug}"
    caption = f"{images.name}: bits that refined latents save at equal PSNR, against the encoder's seconds."
    return save_all(figure, stem)[0], caption
