"""Compare systems image by image: entropy models by bits, enhancers by PSNR, whole models by bits at equal PSNR.

Models that share a trunk and differ only in the entropy model have the same pictures, and models that differ only in
the enhancer the same bits. So one number remains for each lambda, seed and image. Models that are trained whole differ
in both: their PSNR is then turned into bits by the slope of the anchor's curve on the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jointiq.console import Table, number
from jointiq.data.image_sets import ImageSet
from jointiq.errors import ConfigError, DataError
from jointiq.evaluation.bd_rate import bd_rate
from jointiq.evaluation.metrics import mean
from jointiq.evaluation.plots.rd_plot import OUR_COLOURS, new_figure, save_all
from jointiq.evaluation.rd import PSNR, RDCurve
from jointiq.studies.context import Context, Findings, Ours, point_name, steps_text
from jointiq.studies.plan import Value
from jointiq.studies.statistics import Effect, Samples, paired_effect

OPTIONS = {"quantity"}
#: Quantities: the unit of a difference, and its decimals.
QUANTITIES = {"bits": ("%", 2), "psnr": ("dB", 3), "bits_at_equal_psnr": ("%", 2)}
#: Axis and title of a quantity's differences, by their sense.
LABELS = {
    ("bits", "more"): "more bits (%)",
    ("bits", "less"): "bits saved (%)",
    ("psnr", "more"): "PSNR gained (dB)",
    ("psnr", "less"): "PSNR lost (dB)",
    ("bits_at_equal_psnr", "more"): "more bits at equal PSNR (%)",
    ("bits_at_equal_psnr", "less"): "bits saved at equal PSNR (%)",
}


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Compare ``test`` with ``anchor`` of every value that names both, on every set.

    Options: ``quantity`` (bits, psnr or bits_at_equal_psnr), which a value may name for itself. A value's ``sense`` is
    ``more`` (default: its number counts how many more bits, or how much more PSNR, test has than anchor) or ``less``.
    """
    default = options.get("quantity", "bits")
    alike: dict[tuple[str, str], list[Value]] = {}
    for value in context.scale.values:
        quantity = value.details.get("quantity", default)
        if quantity not in QUANTITIES:
            raise ConfigError("paired.quantity", quantity, QUANTITIES)
        alike.setdefault((quantity, value.sense), []).append(value)
    findings = Findings(notes=[_explanation(quantity) for quantity in dict.fromkeys(quantity for quantity, _ in alike)])
    for images in context.sets:
        for (quantity, sense), values in alike.items():
            lines = []
            for value in values:
                effects = _effects(context, images, value, quantity)
                if effects:
                    lines.append((value, effects))
                    findings.ours.append(_ours(context, images, value, effects, quantity))
            if lines:
                findings.tables.append(_by_lambda(images, lines, quantity, sense))
                findings.figures.append(_figure(context, images, lines, quantity, sense))
        findings.tables.append(_systems(context, images))
    return findings


def _effects(context: Context, images: ImageSet, value: Value, quantity: str) -> dict[float | None, Effect]:
    """Return the effect over all lambdas, under None, and at each of them; empty where a side was not trained."""
    names = value.details.get("test"), value.details.get("anchor")
    if None in names:
        return {}
    slopes = _slopes(context, images, str(names[1])) if quantity == "bits_at_equal_psnr" else None
    test, anchor = (_samples(context, images, str(name), quantity, slopes) for name in names)
    shared = [lmbda for lmbda in test if lmbda in anchor]
    if not shared:
        return {}
    sign = -1 if value.sense == "less" else 1
    ours = [run for run in context.scale.runs if run.name == names[0]]
    fixed = bool(ours) and ours[0].init_from == names[1]
    groups: list[tuple[float | None, list[float]]] = [(None, shared), *((lmbda, [lmbda]) for lmbda in shared)]
    return {
        group: paired_effect([sign * test[key] for key in keys], [sign * anchor[key] for key in keys], fixed)
        for group, keys in groups
    }


def _samples(
    context: Context, images: ImageSet, name: str, quantity: str, slopes: NDArray[np.floating] | None = None
) -> dict[float, Samples]:
    """Return measurements (seeds, images) by lambda: PSNR in dB, or the natural logarithm of the file's size.

    With ``slopes`` (dB for each unit of that logarithm, one an image) the size is that of a file with a PSNR of zero on
    the line through the image's point: of two points on one curve it is the same.
    """
    found: dict[float, list[NDArray[np.floating]]] = {}
    for one in context.of(name):
        rows = context.rows(one, images)
        psnr, bits = (np.array([row.get(key, np.nan) for row in rows], float) for key in ("psnr", "bytes"))
        sample = psnr if quantity == "psnr" else np.log(bits)
        found.setdefault(one.lmbda, []).append(sample if slopes is None else sample - psnr / slopes)
    return {lmbda: np.stack(seeds) for lmbda, seeds in found.items()}


def _slopes(context: Context, images: ImageSet, anchor: str) -> NDArray[np.floating]:
    """Return by how many dB each image's PSNR rises for each unit of the logarithm of its bits, on the anchor's curve.

    Raises:
        DataError: there are fewer than two lambdas, or an image's PSNR does not rise with its bits.
    """
    points = {
        quantity: np.array([sample.mean(0) for sample in _samples(context, images, anchor, quantity).values()])
        for quantity in ("bits", "psnr")
    }
    if len(points["bits"]) < 2:
        raise DataError(f"{anchor}: one lambda has no slope; bits_at_equal_psnr needs two or more")
    bits, psnr = (values - values.mean(0) for values in points.values())
    slopes: NDArray[np.floating] = (bits * psnr).sum(0) / (bits * bits).sum(0)
    if not bool((slopes > 0).all()):
        worst = images.paths[int(slopes.argmin())].name
        raise DataError(f"{anchor}: the PSNR of {worst} does not rise with its bits; these models are hardly trained")
    return slopes


def _shown(value: float, quantity: str, sense: str) -> float:
    """Return a difference of logarithms in percent of the anchor's bits (more, or saved), and of PSNR in dB."""
    if quantity == "psnr":
        return value
    return 100 * float(np.expm1(value) if sense == "more" else -np.expm1(-value))


def _text(effect: Effect, quantity: str, sense: str, unit: bool = True) -> str:
    name, digits = QUANTITIES[quantity]
    ends = (effect.mean, effect.low, effect.high)
    mean_, low, high = (number(_shown(x, quantity, sense), digits, sign=True) for x in ends)
    interval = f"{low} to {high}" if math.isfinite(effect.low) else "one image"
    return f"{mean_}{f' {name}' if unit else ''} ({interval})"


def verdict(effect: Effect, paper: float | str) -> str:
    """Return how the sign of our effect compares with that of the paper's number.

    A statement in words claims a difference above zero, unless it begins with "not in" (the paper has none).
    """
    if not effect.sign:
        return "inconclusive"
    if isinstance(paper, str) and paper.startswith("not in"):
        return "above zero" if effect.sign > 0 else "below zero"
    expected = 1 if isinstance(paper, str) or paper > 0 else -1
    return "sign as in the paper" if effect.sign == expected else "opposite sign"


def _ours(
    context: Context, images: ImageSet, value: Value, effects: Mapping[float | None, Effect], quantity: str
) -> Ours:
    test, anchor = str(value.details["test"]), str(value.details["anchor"])
    effect = effects[None]
    found = {key: _shown(getattr(effect, key), quantity, value.sense) for key in ("mean", "low", "high")}
    numbers: dict[str, Any] = {key: x if math.isfinite(x) else None for key, x in found.items()} | {
        "unit": QUANTITIES[quantity][0],
        "lambdas": len(effects) - 1,
        "seeds": len({one.seed for one in context.of(test)}),
        "seed_error": effect.seed_error,
        "image_error": effect.image_error,
        "degrees_of_freedom": effect.degrees if math.isfinite(effect.degrees) else None,
    }
    if quantity == "bits":
        numbers["bd_rate_percent"] = _bd_rate(context, images, test, anchor)
    return Ours(
        value=value.name,
        text=_text(effect, quantity, value.sense),
        numbers=numbers,
        measured_on=str(images),
        steps=steps_text(context.of(test)),
        verdict=verdict(effect, value.paper) if value.details.get("judge", True) else "",
    )


def _bd_rate(context: Context, images: ImageSet, test: str, anchor: str) -> float | None:
    """Return the BD-rate in percent of means over images and seeds, at the trunk's PSNR; None where impossible."""
    runs = {run.name: run for run in context.scale.runs}
    trunk = runs[test].init_from if test in runs else None
    quality = context.curve([trunk], images) if trunk else None
    if quality is None or PSNR not in quality.results:
        return None
    by_name = dict(zip(quality.parameter, quality.results[PSNR], strict=True))
    by_lambda = {one.lmbda: by_name[point_name(one.lmbda)] for one in context.of(str(trunk), runs[str(trunk)].seeds[0])}
    curves = []
    for name in (anchor, test):
        points = []
        for lmbda, psnr in by_lambda.items():
            rows = [row["bpp"] for one in context.of(name) if one.lmbda == lmbda for row in context.rows(one, images)]
            if rows:
                points.append((float(np.mean(rows)), psnr))
        points.sort()
        columns = {"bpp": tuple(bpp for bpp, _ in points), PSNR: tuple(psnr for _, psnr in points)}
        curves.append(RDCurve(name, columns))
    try:
        return bd_rate(curves[0], curves[1]).percent
    except DataError:
        return None


Lines = Sequence[tuple[Value, Mapping[float | None, Effect]]]


def _columns(lines: Lines) -> dict[float | None, str]:
    """Return the lambdas and, if there are several, None for all of them, each with its heading."""
    columns: dict[float | None, str] = {lmbda: f"lambda {lmbda:g}" for lmbda in lines[0][1] if lmbda is not None}
    return columns if len(columns) == 1 else {**columns, None: "all"}


def _by_lambda(images: ImageSet, lines: Lines, quantity: str, sense: str) -> Table:
    columns = _columns(lines)
    title = f"By lambda on {images.name}: {LABELS[quantity, sense]}, with 95 % interval"
    table = Table(title, ("", *columns.values()))
    for value, effects in lines:
        cells = [_text(effects[key], quantity, sense, unit=False) if key in effects else "" for key in columns]
        table.rows.append((value.name, *cells))
    return table


def _systems(context: Context, images: ImageSet) -> Table:
    """Return a table of the means over images and seeds of every run, to put differences into proportion."""
    header = ("system", "lambda", "seeds", "bpp", "PSNR dB", "MS-SSIM", "enc s", "dec s")
    table = Table(f"Files on {images.name}: means over images and seeds", header)
    columns = (("bpp", 4), ("psnr", 2), ("ms_ssim", 4), ("encoding_time", 2), ("decoding_time", 2))
    for run in context.scale.runs:
        for lmbda in run.lmbda:
            found = [one for one in context.of(run.name) if one.lmbda == lmbda]
            if run.measure and found:
                rows = [row for one in found for row in context.rows(one, images)]
                cells = [number(mean(row.get(key) for row in rows), digits) for key, digits in columns]
                table.rows.append((run.label, f"{lmbda:g}", str(len(found)), *cells))
    return table


def _figure(context: Context, images: ImageSet, lines: Lines, quantity: str, sense: str) -> tuple[Any, str]:
    figure = new_figure(6.4, 3.2)
    axes = figure.add_subplot()
    columns = _columns(lines)
    for i, (value, effects) in enumerate(lines):
        found = [(x, effects[key]) for x, key in enumerate(columns) if key in effects]
        found = [(x, effect) for x, effect in found if math.isfinite(effect.low)]
        shown = [[_shown(v, quantity, sense) for v in (e.mean, e.low, e.high)] for _, e in found]
        middle = [mean_ for mean_, _, _ in shown]
        bars = [[mean_ - low for mean_, low, _ in shown], [high - mean_ for mean_, _, high in shown]]
        places = [x + 0.12 * (i - (len(lines) - 1) / 2) for x, _ in found]
        colour = OUR_COLOURS[i % len(OUR_COLOURS)]
        axes.errorbar(places, middle, bars, fmt="o", color=colour, label=value.name, capsize=2, markersize=4)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(columns)), list(columns.values()))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylabel(LABELS[quantity, sense])
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    axes.set_title(f"{images.name}, with 95 % intervals", loc="left", fontsize=10, parse_math=False)
    stem = context.output / f"paired_{quantity}{'_saved' * (sense == 'less')}_{images.slug}"
    return save_all(figure, stem)[0], f"{images.name}: differences by lambda with 95 % intervals."


_WHAT = {
    "bits": "The models of a lambda share one trunk, so their pictures and PSNR are the same by construction and only "
    "bits differ: a difference is the mean, over lambdas and images, of the logarithm of the ratio of the sizes of "
    "real files, in percent; where it can be had, `results.json` holds the BD-rate of the mean curves beside it.",
    "psnr": "The models of a lambda share one frozen compression network, so their bits are the same by construction: "
    "a difference is the mean over lambdas and images of the difference in PSNR.",
    "bits_at_equal_psnr": "These models are trained whole and differ in bits and in PSNR: a difference is the mean, "
    "over lambdas and images, of the logarithm of the ratio of the sizes of real files, in percent, after the "
    "difference in PSNR is turned into bits by the slope of the anchor's own curve on the image (a straight line of "
    "PSNR over the logarithm of the bits).",
}


def _explanation(quantity: str) -> str:
    return (
        f"{_WHAT[quantity]} The 95 % interval is Student's t over two chances, the seed of the training (estimated "
        "within each lambda, pooled over lambdas) and the choice of images (paired: the same images on both sides), "
        "with Welch and Satterthwaite's degrees of freedom. Lambdas and trunks are fixed: other trunks may give other "
        "numbers. A sign counts only if the interval excludes zero."
    )
