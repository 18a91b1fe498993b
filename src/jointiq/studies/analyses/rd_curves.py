"""Rate-distortion curves of a study's systems, real codecs and published curves, and BD-rates between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jointiq.console import number
from jointiq.data.image_sets import ImageSet
from jointiq.errors import DataError
from jointiq.evaluation.bd_rate import BDRate, bd_rate
from jointiq.evaluation.plots.rd_plot import rd_plot
from jointiq.evaluation.rd import RDCurve, write_rd
from jointiq.evaluation.tables import bd_table, rd_table
from jointiq.studies.context import Context, Findings, Ours, steps_text
from jointiq.studies.plan import Value

OPTIONS = {"codecs", "metrics", "all_against", "join", "draw", "rates"}


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Draw the curves of every set, and compute the BD-rates of ``test`` against ``anchor`` for the values.

    Options:

    - ``codecs``: families of real codecs to measure.
    - ``metrics``: psnr, ms-ssim.
    - ``all_against``: a run or codec with which every run is compared in a further table.
    - ``join``: name -> runs whose points make one curve, as Lee 2019's base and hybrid models do.
    - ``draw``: the codecs and published curves in the plots; default: all.
    - ``rates``: lowest and highest rate (bpp) of the points that count for BD-rates; default: all points.

    Keys of a value:

    - ``anchor``: a run, a codec (``jpeg2000``) or the file name of a published curve, or a list of these, of which the
      first that exists counts.
    - ``metric``: default: psnr.
    - ``set``: only sets with this word in their names.
    - ``sense``: with ``less`` the number counts the bits that test saves, otherwise those that it needs more.
    """
    metrics = options.get("metrics", ["psnr"])
    findings = Findings(
        notes=[
            "Every point is the mean over the images of real files (bits per pixel of the whole file; PSNR on 8-bit "
            "RGB). BD-rates by PCHIP over the common range of quality, never extrapolated. One training a point: there "
            "is no interval, and differences of a percent or two at a pilot's size are within the chance of a seed."
        ]
    )
    rates = options.get("rates")
    if rates:
        findings.notes.append(f"BD-rates are of the points from {rates[0]:g} to {rates[1]:g} bits per pixel.")
    for images in context.sets:
        ours = _systems(context, images, options.get("join", {}))
        for name, curve in ours.items():
            # For `make bdrate` and `src.report`, which read a results folder.
            write_rd(context.work / "curves" / images.slug / f"{name}.json", curve)
        codecs = {curve.about.get("codec", curve.name): curve for curve in _codecs(context, images, options)}
        published = context.published.get(images.name, {})
        curves = {**published, **codecs, **ours}
        within = {name: curve.between(*rates) for name, curve in curves.items()} if rates else curves
        for value in context.scale.values:
            found = _ours(context, images, value, within, options)
            findings.ours += [found] if found else []
        findings.tables += [rd_table(curve) for curve in ours.values()]
        anchor = options.get("all_against")
        if anchor in curves:
            tests = [within[name] for name in ours if name != anchor]
            findings.tables.append(bd_table([rate for rate in _rates(tests, within[anchor], metrics) if rate]))
        findings.numbers[f"curves on {images.name}"] = {
            name: {key: list(values) for key, values in curve.results.items()} for name, curve in ours.items()
        }
        for metric in metrics if ours else ():
            stem = context.output / f"rd_{metric}_{images.slug}"
            drawn = options.get("draw", curves)
            others = [curve for name, curve in {**published, **codecs}.items() if name in drawn]
            files = rd_plot(stem, list(ours.values()), others, metric, f"{images.name}: {context.scale.name} scale")
            findings.figures.append((files[0], f"{images.name}: rate and distortion of real files."))
    return findings


def _systems(context: Context, images: ImageSet, join: Mapping[str, list[str]]) -> dict[str, RDCurve]:
    """Return the curves of the study's runs by name; joined runs only as one curve."""
    members = {run: name for name, runs in join.items() for run in runs}
    groups: dict[str, list[str]] = {}
    for run in context.scale.runs:
        if run.measure:
            groups.setdefault(members.get(run.name, run.name), []).append(run.name)
    curves = {name: context.curve(runs, images, name if name in join else None) for name, runs in groups.items()}
    return {name: curve for name, curve in curves.items() if curve}


def _codecs(context: Context, images: ImageSet, options: Mapping[str, Any]) -> list[RDCurve]:
    families = options.get("codecs", [])
    return context.anchors(images, families) if families else []


def _rates(curves: Sequence[RDCurve], anchor: RDCurve, metrics: list[str]) -> list[BDRate | None]:
    return [_rate(anchor, curve, metric)[0] for metric in metrics for curve in curves]


def _rate(anchor: RDCurve, test: RDCurve, metric: str) -> tuple[BDRate | None, str]:
    """Return the BD-rate, or None and the reason."""
    try:
        return bd_rate(anchor, test, metric), ""
    except DataError as error:
        return None, str(error)


def _ours(
    context: Context, images: ImageSet, value: Value, curves: Mapping[str, RDCurve], options: Mapping[str, Any]
) -> Ours | None:
    """Return our result for a value; None if it is not for this set or a curve is missing."""
    details = value.details
    test, anchors = str(details.get("test")), details.get("anchor", [])
    anchor = next((name for name in ([anchors] if isinstance(anchors, str) else anchors) if name in curves), None)
    metric = str(details.get("metric", "psnr"))
    if str(details.get("set", "")).lower() not in images.name.lower() or test not in curves or anchor is None:
        return None
    runs = options.get("join", {}).get(test, [test])
    trained = [one for run in runs for one in context.of(run)]
    rate, reason = _rate(curves[anchor], curves[test], metric)
    if rate is None:
        return Ours(value.name, f"none: {reason}", {}, str(images), steps_text(trained))
    percent = -rate.percent if value.sense == "less" else rate.percent
    text = (
        f"{number(percent, 2, sign=True)} % against {rate.anchor} ({rate.low:.1f} to {rate.high:.1f} dB, "
        f"{rate.test_points} and {rate.anchor_points} points)"
    )
    numbers = {**asdict(rate), "percent": percent}
    return Ours(value.name, text, numbers, str(images), steps_text(trained), "no interval")
