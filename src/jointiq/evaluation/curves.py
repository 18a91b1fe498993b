"""Join the RD points of runs to rate-distortion curves: a point for each lambda, the mean over its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import stdev
from typing import Any

from jointiq.evaluation.metrics import mean
from jointiq.evaluation.rd import RESULT_KEYS, RDCurve, Row, curve_from_rows

#: Keys in ``about`` of the RD files of runs: key of the curve, experiment, and the overrides that make another curve.
CURVE, EXPERIMENT, TYPED = "curve", "experiment", "typed"
#: Key in ``about`` of the spread over seeds: a list of ``lmbda``, ``seeds``, and standard deviations by result.
SPREAD = "spread"


def is_of_runs(curve: RDCurve) -> bool:
    """Return whether a curve is made of RD points of runs."""
    return (
        CURVE in curve.about
        and bool(curve.images)
        and all(row.keys() >= {"image", "lmbda", "seed"} for row in curve.images)
    )


def image_set(curve: RDCurve) -> frozenset[tuple[Any, ...]]:
    """Return the images that a curve lists, by name and size; empty for curves that list none (published ones)."""
    return frozenset((row.get("image"), row.get("width"), row.get("height")) for row in curve.images)


def point_name(row: Row) -> str:
    """Return the name of the point that a row of a run belongs to: its lambda, or a quality of a model of all rates."""
    return f"{row['lmbda']:g}" if row.get("quality") is None else f"quality {row['quality']:g}"


def join_points(points: Iterable[RDCurve]) -> list[RDCurve]:
    """Join RD points of runs to curves; the points of a curve have the same key and the same images.

    A run that several files hold counts once, as the file with the fewest points has it: the run's own. The name is
    that of the file with the most points. Curves with the same name are told apart by their overrides.
    """
    groups: dict[tuple[str, frozenset[tuple[Any, ...]]], list[RDCurve]] = defaultdict(list)
    for point in points:
        groups[point.about[CURVE], image_set(point)].append(point)
    return _told_apart([_join(group) for group in groups.values()])


def _join(points: Sequence[RDCurve]) -> RDCurve:
    points = sorted(points, key=len)
    runs: dict[tuple[float, int], dict[str, Row]] = defaultdict(dict)
    for row in (row for point in points for row in point.images):
        runs[float(row["lmbda"]), int(row["seed"])].setdefault(str(row["image"]), row)
    seeds: dict[float, list[list[Row]]] = defaultdict(list)
    for (lmbda, _), rows in sorted(runs.items()):
        seeds[lmbda].append(list(rows.values()))
    largest = points[-1]
    curve = curve_from_rows(
        largest.name,
        [(point_name(of[0][0]), [row for rows in of for row in rows]) for of in seeds.values()],
        "real files of the test images, a point for each lambda",
    )
    if len(curve) == len(largest):
        # What is no mean over images, such as the number of parameters.
        curve = replace(curve, results={**largest.results, **curve.results})
    spread = [_spread(lmbda, of_lambda) for lmbda, of_lambda in seeds.items() if len(of_lambda) > 1]
    about = {key: largest.about.get(key) for key in (CURVE, EXPERIMENT, TYPED)}
    return curve.with_about({**about, SPREAD: spread} if spread else about)


def _spread(lmbda: float, seeds: Sequence[Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {"lmbda": lmbda, "seeds": len(seeds)}
    for column, key in RESULT_KEYS.items():
        means = [mean(row.get(column) for row in rows) for rows in seeds]
        known = [value for value in means if value is not None]
        if len(known) == len(means) and "time" not in column:
            found[key] = stdev(known)
    return found


def _told_apart(curves: Sequence[RDCurve]) -> list[RDCurve]:
    """Return the curves; names that several share get the overrides in which these curves differ."""
    named = []
    for curve in curves:
        alike = [set(other.about.get(TYPED) or ()) for other in curves if other.name == curve.name]
        own = [text for text in curve.about.get(TYPED) or () if text not in set.intersection(*alike)]
        named.append(replace(curve, name=" ".join([curve.name, *own])))
    return named
