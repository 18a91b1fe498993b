"""BD-rate tables of a results folder: models against anchors and each other, ablations as the paper's Table 2.

RD files are told from other JSON by their ``bpp``. Anchors are files below a folder named ``anchors``, unless the user
names others. The points that runs and sweeps leave are joined to curves (:mod:`jointiq.evaluation.curves`). A curve of
the experiment ``jointiq`` is the full model, those of ``ablation_*`` are its ablations; of other RD files, a file
``jointiq.json`` and ``ablation_*.json`` beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from jointiq.configs import EXPERIMENTS
from jointiq.console import NOTHING, Table, number, plain_markdown
from jointiq.errors import DataError
from jointiq.evaluation.bd_rate import METHODS, METRICS, MIN_POINTS, TOO_FEW, BDRate, NoBDRate, bd_rate
from jointiq.evaluation.curves import CURVE, EXPERIMENT, TYPED, image_set, is_of_runs, join_points
from jointiq.evaluation.rd import RDCurve, Row, read_rd, rows_as_csv
from jointiq.evaluation.short_names import short_names
from jointiq.files import read_json, write_text

FULL_MODEL = "jointiq"
LABELS = {"psnr": "PSNR", "ms-ssim": "MS-SSIM in dB"}
#: Headings of what has to be known to quote a BD-rate.
RANGE_HEADER = ("overlap dB", "range", "points")
_MOVED_ASIDE = re.compile(r"\.old\d+$")
#: Most pairs of one kind that are named in print.
_TOLD = 3


def comparison_options() -> argparse.ArgumentParser:
    """The options of every command that compares, for ``parents=``: the anchors and the interpolation."""
    parser = argparse.ArgumentParser(add_help=False)
    text = "folders or RD files of anchors, ours or published; default: folders named anchors in RESULTS"
    parser.add_argument("--anchors", type=Path, nargs="+", default=[], help=text)
    text = "interpolation of the BD-rates, default: %(default)s"
    parser.add_argument("--method", choices=METHODS, default="pchip", help=text)
    return parser


@dataclass(frozen=True)
class CurveFile:
    """An RD curve and the file it is from: of a curve of runs the first, and the folder where they were found."""

    path: Path
    curve: RDCurve
    place: Path | None = None

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.path.stem if self.place is None else str(self.curve.about.get(EXPERIMENT))

    @property
    def study(self) -> tuple[object, ...]:
        """What a full model and its ablations have in common."""
        if self.place is None:
            return (self.path.parent,)
        return (self.place, *(self.curve.about.get(TYPED) or ()), image_set(self.curve))


@dataclass(frozen=True)
class Ablations:
    """The BD-rates (None: not to be had) of the ablations in one folder against the full model there."""

    folder: Path
    rates: dict[str, dict[str, BDRate | None]]


@dataclass(frozen=True)
class LeftOut:
    """Two curves without a BD-rate: what such pairs have in common, which curves by which metric, and why.

    ``curve`` names the one that is the reason alone, if one is.
    """

    kind: str
    pair: str
    metric: str
    reason: str
    curve: str | None = None

    def __str__(self) -> str:
        """Give the whole of it as a line."""
        return f"{self.pair}, {self.metric}: {self.reason}"


@dataclass(frozen=True)
class Comparison:
    """All BD-rates (against anchors, of models against a model), the ablations, and the pairs that have none."""

    method: str
    rates: tuple[BDRate, ...]
    ablations: tuple[Ablations, ...]
    left_out: tuple[LeftOut, ...]
    between: tuple[BDRate, ...] = ()

    @property
    def has_rates(self) -> bool:
        """Whether there is a BD-rate at all."""
        rows = [row for study in self.ablations for row in study.rates.values()]
        return bool(self.rates or self.between) or any(rate for row in rows for rate in row.values())

    def left_out_by_kind(self) -> list[str]:
        """Say what was left out, a line for each kind of reason."""
        lines = []
        for kind in dict.fromkeys(one.kind for one in self.left_out):
            metrics: dict[str, list[str]] = {}
            for one in self.left_out:
                if one.kind == kind:
                    metrics.setdefault(one.pair, []).append(one.metric)
            if curves := list(dict.fromkeys(one.curve for one in self.left_out if one.kind == kind and one.curve)):
                lines.append(_listed(curves, "curve", kind))
                continue
            pairs = [pair if len(by) == len(METRICS) else f"{pair} ({', '.join(by)})" for pair, by in metrics.items()]
            lines.append(_listed(pairs, "pair", kind))
        return lines


def _listed(names: Sequence[str], thing: str, kind: str) -> str:
    more = f", and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"{len(names)} {thing}{'' if len(names) == 1 else 's'} {kind}: {', '.join(names[:_TOLD])}{more}"


@cache
def table_2() -> dict[str, tuple[str, float]]:
    """Experiment -> the row's name and its BD-rate loss (percent, PSNR) in the paper's Table 2, from its study."""
    values = yaml.safe_load((EXPERIMENTS / "table2" / "study.yaml").read_text(encoding="utf-8"))["values"]
    return {value["test"]: (value["name"], value["paper"]) for value in values if isinstance(value["paper"], float)}


def find_curves(places: Sequence[Path], anchors: bool | None = None) -> list[CurveFile]:
    """Read the curves that ``places`` (files or folders, searched to any depth) hold, sorted by path.

    What runs and sweeps have left is joined to curves. Files and folders whose name begins with a dot are passed over,
    and so are runs that were moved aside, and JSON without ``bpp``; what is no JSON is named on stderr. In folders,
    ``anchors`` true keeps only what lies below a folder named ``anchors``, false only what does not.

    Raises:
        DataError: a place that does not exist, or an RD file that cannot be a curve.
    """
    found: dict[Path, CurveFile] = {}
    of_runs: list[CurveFile] = []
    for place in places:
        if place.is_dir():
            inside = [path for path in sorted(place.rglob("*.json")) if path.is_file()]
            files = [path for path in inside if not _passed_over(path.relative_to(place), anchors) and _is_rd(path)]
        elif place.is_file():
            files = [place]
        else:
            raise DataError(f"{place}: no such file or folder of RD files")
        for path in files:
            one = CurveFile(path, read_rd(path))
            if is_of_runs(one.curve):
                of_runs.append(replace(one, place=place))
            else:
                found.setdefault(path.resolve(), one)
    return _distinct([*_joined(of_runs), *found.values()])


def _joined(points: Sequence[CurveFile]) -> list[CurveFile]:
    """One entry for each curve of runs: the full model, then the others in the order of their first points."""
    first = {(point.curve.about[CURVE], image_set(point.curve)): point for point in reversed(points)}
    curves = join_points(point.curve for point in points)
    files = [replace(first[curve.about[CURVE], image_set(curve)], curve=curve) for curve in curves]
    return sorted(files, key=_nearest_to_full_model, reverse=True)


def given_curves(places: Sequence[Path]) -> list[RDCurve]:
    """Read the curves that files and folders are, in the order given: RD files, runs, sweeps, folders of those.

    A folder without any may hold the per-image files of CompressAI (:func:`jointiq.evaluation.rd.read_per_image`). Of a
    place with several curves the full model comes first.

    Raises:
        DataError: a place that is or holds no curve.
    """
    curves: list[CurveFile] = []
    for place in places:
        inside = [file for file in find_curves([place]) if file.place] if place.is_dir() else []
        curves += inside or [CurveFile(place, read_rd(place))]
    return [file.curve for file in _distinct(curves)]


def _nearest_to_full_model(file: CurveFile) -> tuple[bool, int]:
    """Largest for the full model with the least typed beside it."""
    return file.experiment == FULL_MODEL, -len(file.curve.about.get(TYPED) or ())


def find_compared(results: Sequence[Path], anchors: Sequence[Path]) -> tuple[list[CurveFile], list[CurveFile]]:
    """Read what is to be compared: models, and the anchors that they are judged against.

    Args:
        results: folders or RD files of models; below folders named ``anchors`` they hold anchors.
        anchors: folders or RD files of anchors; empty: those in ``results``. A file that ``results`` names as a model
            is judged, even if it lies among the anchors.

    Raises:
        DataError: no RD file of a model, a place that does not exist, or an RD file that cannot be a curve.
    """
    models = find_curves(results, anchors=False)
    if not models:
        named = ", ".join(map(str, results))
        raise DataError(f"no RD files in {named} (anchors not counted); python -m src.evaluate output=FILE makes them")
    against = find_curves(anchors) if anchors else find_curves([p for p in results if p.is_dir()], anchors=True)
    judged = {place.resolve() for place in results if place.is_file()}
    return models, [file for file in against if file.path.resolve() not in judged]


def _passed_over(path: Path, anchors: bool | None) -> bool:
    if any(part.startswith(".") or _MOVED_ASIDE.search(part) for part in path.parts):
        return True
    return anchors is not None and ("anchors" in path.parts[:-1]) != anchors


def _is_rd(path: Path) -> bool:
    try:
        document = read_json(path)
    except DataError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return False
    if not isinstance(document, dict):
        return False
    results = document.get("results")
    # Without that key a lone number is no curve: the status of a run has a bpp, too.
    return "bpp" in results if isinstance(results, dict) else isinstance(document.get("bpp"), list)


def _distinct(files: list[CurveFile]) -> list[CurveFile]:
    """Name curves that share a name after their files as well."""
    names = [file.curve.name for file in files]
    clashing = [file for file in files if names.count(file.curve.name) > 1]
    ends = dict(zip([file.path for file in clashing], short_names([str(f.path) for f in clashing]), strict=True))
    return [
        replace(file, curve=replace(file.curve, name=f"{file.curve.name} ({ends[file.path].removesuffix('.json')})"))
        if file.path in ends
        else file
        for file in files
    ]


def _same_images(one: RDCurve, other: RDCurve) -> bool:
    """Tell whether two curves are of the same images; those that do not list theirs (published ones) are believed."""
    sets = [image_set(curve) for curve in (one, other)]
    return not all(sets) or sets[0] == sets[1]


def _rate(anchor: RDCurve, test: RDCurve, metric: str, method: str, left_out: list[LeftOut]) -> BDRate | None:
    try:
        if not _same_images(anchor, test):
            raise NoBDRate("measured on different images", "they were measured on different images")
        return bd_rate(anchor, test, metric, method)
    except NoBDRate as error:
        left_out.append(LeftOut(error.kind, f"{test.name} against {anchor.name}", metric, str(error), error.curve))
        return None


def compare_all(models: Sequence[CurveFile], anchors: Sequence[CurveFile], method: str = "pchip") -> Comparison:
    """Compute as :func:`compare_pairs`, for those who need a number.

    Raises:
        DataError: nothing could be computed; the message is the first reason.
        ConfigError: unknown method.
    """
    comparison = compare_pairs(models, anchors, method)
    if comparison.has_rates:
        return comparison
    if comparison.left_out:
        reasons = comparison.left_out
        raise DataError(f"no BD-rate can be computed; first of {len(reasons)} reasons: {reasons[0]}")
    raise DataError(
        f"nothing to compare: {len(models)} RD files of models, {len(anchors)} of anchors, no {FULL_MODEL}.json "
        "with an ablation beside it; anchors come from python -m src.anchors, models from python -m src.evaluate"
    )


def compare_pairs(models: Sequence[CurveFile], anchors: Sequence[CurveFile], method: str = "pchip") -> Comparison:
    """Compute every model's BD-rate against every anchor, and the ablations' against their full model.

    Other curves of runs are compared with one of them that has the same images: the full model's, else the first.

    Raises:
        ConfigError: unknown method.
    """
    left_out: list[LeftOut] = []
    taken = {file.path.resolve() for file in anchors}
    models = [file for file in models if file.path.resolve() not in taken]
    rates = [
        rate
        for metric in METRICS
        for anchor in anchors
        for model in models
        if (rate := _rate(anchor.curve, model.curve, metric, method, left_out))
    ]
    studies: list[Ablations] = []
    of_table_2 = []
    for full in (file for file in models if file.experiment == FULL_MODEL):
        parts = {m.experiment: m for m in models if m.study == full.study and m.experiment in table_2()}
        if parts:
            of_table_2 += [full, *parts.values()]
            of_study: dict[str, dict[str, BDRate | None]] = {
                name: {metric: _rate(full.curve, part.curve, metric, method, left_out) for metric in METRICS}
                for name, part in parts.items()
            }
            if any(rate for of_metric in of_study.values() for rate in of_metric.values()):
                studies.append(Ablations(full.place or full.path.parent, of_study))
    between = _between([file for file in models if file.place], of_table_2, method, left_out)
    return Comparison(method, tuple(rates), tuple(studies), tuple(left_out), tuple(between))


def _between(
    models: Sequence[CurveFile], laid_out: Sequence[CurveFile], method: str, left_out: list[LeftOut]
) -> list[BDRate]:
    """BD-rates of curves of runs against one of them, by the images that they share, but for those in ``laid_out``."""
    pairs = []
    for images in dict.fromkeys(image_set(file.curve) for file in models):
        alike = [file for file in models if image_set(file.curve) == images]
        enough = [file for file in alike if len(file.curve) >= MIN_POINTS]
        for file in (file for file in alike if file not in enough):
            reason = f"{file.curve.name} has {len(file.curve)} points; BD-rate needs at least {MIN_POINTS}"
            left_out += [LeftOut(TOO_FEW, file.curve.name, metric, reason, file.curve.name) for metric in METRICS]
        if enough:
            anchor = max(enough, key=_nearest_to_full_model)
            pairs += [(anchor.curve, file.curve) for file in enough if file != anchor and file not in laid_out]
    return [
        rate for metric in METRICS for pair in pairs if (rate := _rate(*pair, metric, method, left_out)) is not None
    ]


def tables(comparison: Comparison) -> list[Table]:
    """Lay a comparison out: a table per metric, of the anchors and of the models, then Table 2 for each study."""
    laid_out = []
    for rates, of, other in ((comparison.rates, "", "anchor"), (comparison.between, " between models", "first model")):
        for metric in METRICS:
            title = f"BD-rate{of} by {LABELS[metric]}, {comparison.method} (negative: fewer bits than the {other})"
            of_metric = [rate for rate in rates if rate.metric == metric]
            if of_metric:
                laid_out.append(_rates_table(title, other, of_metric))
    return laid_out + [_table_2(study, comparison.method) for study in comparison.ablations]


def _rates_table(title: str, other: str, rates: Sequence[BDRate]) -> Table:
    header = (other, "model", "BD-rate %", *RANGE_HEADER)
    table = Table(title, header, left=2, optional=RANGE_HEADER[::-1])
    for i, rate in enumerate(rates):
        if i and rate.anchor != rates[i - 1].anchor:
            table.end_group()
        table.rows.append((rate.anchor, rate.test, number(rate.percent, 2, sign=True), *_range(rate)))
    return table


def print_comparison(comparison: Comparison) -> None:
    """Print the tables, and on stderr what was left out."""
    for table in tables(comparison):
        table.print()
    for line in comparison.left_out_by_kind():
        print(f"left out: {line}", file=sys.stderr)


def _range(rate: BDRate) -> tuple[str, str, str]:
    overlap = f"{rate.low:.2f} to {rate.high:.2f}"
    return overlap, f"{100 * rate.overlap:.0f} %", f"{rate.anchor_points} / {rate.test_points}"


def _table_2(study: Ablations, method: str) -> Table:
    table = Table(
        f"Table 2: BD-rate losses (%) against the full model, {method}, {study.folder}",
        ("Models", "paper", "ours", *RANGE_HEADER, "MS-SSIM"),
        optional=RANGE_HEADER[::-1],
    )
    for name, (label, paper) in table_2().items():
        row = study.rates.get(name, {})
        psnr, ms_ssim = row.get("psnr"), row.get("ms-ssim")
        details = _range(psnr) if psnr else (NOTHING,) * 3
        ours = [number(rate.percent if rate else None, 2) for rate in (psnr, ms_ssim)]
        table.rows.append((label, f"{paper:.2f}", ours[0], *details, ours[1]))
    return table


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write ``bdrate.md``, ``bdrate.csv`` and ``bdrate.json`` into ``folder``."""
    texts = [table.markdown() for table in tables(comparison)]
    texts.append(
        "The overlap is the range of quality both curves cover, over which the mean is taken, and its share of "
        "what either covers; nothing is extrapolated. Points are those of the anchor (or full model) and of the model. "
        "MS-SSIM in dB is -10 log10(1 - mean MS-SSIM).\n"
    )
    if comparison.left_out:
        texts.append(
            "\n".join(["# Left out", "", *(f"- {plain_markdown(str(one))}" for one in comparison.left_out), ""])
        )
    rows: list[Row] = [{"table": "anchors", **asdict(rate), "paper_percent": None} for rate in comparison.rates]
    rows += [{"table": "models", **asdict(rate), "paper_percent": None} for rate in comparison.between]
    for study in comparison.ablations:
        for name, of_metric in study.rates.items():
            for metric, rate in of_metric.items():
                if rate:
                    paper = table_2()[name][1] if metric == "psnr" else None
                    rows.append({"table": f"ablations in {study.folder}", **asdict(rate), "paper_percent": paper})
    document: dict[str, Any] = {
        "method": comparison.method,
        "rates": rows,
        "left_out": [str(one) for one in comparison.left_out],
    }
    files = [folder / f"bdrate.{suffix}" for suffix in ("md", "csv", "json")]
    write_text(files[0], "\n".join(texts))
    write_text(files[1], rows_as_csv(rows))
    write_text(files[2], json.dumps(document, indent=1) + "\n")
    return files
