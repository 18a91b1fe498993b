"""BD-rate tables of a results folder: models against anchors and each other, ablations as in the paper's Table 2.

RD files differ from other JSON files by their ``bpp``. Anchors are files below a folder named ``anchors``, unless the
user names others. The RD points of runs and sweeps are joined to curves (:mod:`jointiq.evaluation.curves`). Curves of
the experiment ``jointiq`` are full models, and those of ``ablation_*`` their ablations. Among other RD files these are
``jointiq.json``, and ``ablation_*.json`` beside it.
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

from jointiq.command_line import Parser, program
from jointiq.configs import EXPERIMENTS
from jointiq.console import NOTHING, Table, plain_markdown
from jointiq.errors import DataError
from jointiq.evaluation.bd_rate import METHODS, METRICS, MIN_POINTS, TOO_FEW, BDRate, NoBDRate, bd_rate
from jointiq.evaluation.curves import CURVE, EXPERIMENT, TYPED, image_set, is_of_runs, join_points
from jointiq.evaluation.rd import RDCurve, Row, read_per_image, read_rd, rows_as_csv
from jointiq.evaluation.short_names import short_names
from jointiq.evaluation.tables import MARKED, bd_percent
from jointiq.files import read_json, write_text

FULL_MODEL = "jointiq"
LABELS = {"psnr": "PSNR", "ms-ssim": "MS-SSIM in dB"}
#: Headings of the columns that are needed to quote a BD-rate.
RANGE_HEADER = ("overlap dB", "range", "points")
_MOVED_ASIDE = re.compile(r"\.old\d+$")
#: Largest number of pairs of one kind that are named in print.
_TOLD = 3


def comparison_options() -> argparse.ArgumentParser:
    """Return a parser with the options of every command that compares, ``--anchors`` and ``--method``."""
    parser = Parser(add_help=False)
    text = "folders or RD files of anchors, ours or published; default: folders named anchors in RESULTS"
    parser.add_argument("--anchors", type=Path, nargs="+", default=[], help=text)
    text = "interpolation of the BD-rates, default: %(default)s"
    parser.add_argument("--method", choices=METHODS, default="pchip", help=text)
    return parser


@dataclass(frozen=True)
class CurveFile:
    """An RD curve and its file.

    Attributes:
        path: the file; of a curve of runs, that of the first run.
        place: the folder in which the runs were found; None: not a curve of runs.
    """

    path: Path
    curve: RDCurve
    place: Path | None = None

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.path.stem if self.place is None else str(self.curve.about.get(EXPERIMENT))

    @property
    def study(self) -> tuple[object, ...]:
        """A key that a full model and its ablations share."""
        if self.place is None:
            return (self.path.parent,)
        return (self.place, *(self.curve.about.get(TYPED) or ()), image_set(self.curve))


@dataclass(frozen=True)
class Ablations:
    """BD-rates of the ablations in a folder against the full model there, by experiment and metric; None: no value."""

    folder: Path
    rates: dict[str, dict[str, BDRate | None]]


@dataclass(frozen=True)
class LeftOut:
    """Two curves without a BD-rate, and the reason (see :class:`NoBDRate` for ``kind`` and ``curve``)."""

    kind: str
    pair: str
    metric: str
    reason: str
    curve: str | None = None

    def __str__(self) -> str:
        """Return pair, metric and reason as a line."""
        return f"{self.pair}, {self.metric}: {self.reason}"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        method: of the BD-rates.
        rates: of models against anchors.
        ablations: against their full models.
        left_out: pairs without a BD-rate.
        between: of models against one of them.
    """

    method: str
    rates: tuple[BDRate, ...]
    ablations: tuple[Ablations, ...]
    left_out: tuple[LeftOut, ...]
    between: tuple[BDRate, ...] = ()

    @property
    def has_rates(self) -> bool:
        """Whether there is any BD-rate."""
        rows = [row for study in self.ablations for row in study.rates.values()]
        return bool(self.rates or self.between) or any(rate for row in rows for rate in row.values())

    def left_out_by_kind(self) -> list[str]:
        """Return a line for each kind of reason for which pairs were left out."""
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
    """Return, by experiment, the row's name and BD-rate loss (percent, PSNR) in the paper's Table 2, from its study."""
    values = yaml.safe_load((EXPERIMENTS / "table2" / "study.yaml").read_text(encoding="utf-8"))["values"]
    return {value["test"]: (value["name"], value["paper"]) for value in values if isinstance(value["paper"], float)}


def find_curves(places: Sequence[Path], anchors: bool | None = None) -> list[CurveFile]:
    """Read the curves in ``places`` (files, or folders searched to any depth), sorted by path.

    The RD points of runs are joined to curves. In folders these are skipped: names that begin with a dot, runs that
    were moved aside, and JSON files without ``bpp``. Damaged JSON files are named on stderr.

    Args:
        anchors: in folders, True keeps only files below a folder named ``anchors``, False only the others; None: all.

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
    """Return one entry for each curve of runs: the full model, then the others in the order of their first points."""
    first = {(point.curve.about[CURVE], image_set(point.curve)): point for point in reversed(points)}
    curves = join_points(point.curve for point in points)
    files = [replace(first[curve.about[CURVE], image_set(curve)], curve=curve) for curve in curves]
    return sorted(files, key=_nearest_to_full_model, reverse=True)


def given_curves(places: Sequence[Path]) -> list[RDCurve]:
    """Read the curves of RD files, runs, sweeps and folders of these, in the order given.

    A folder without runs may hold the per-image files of CompressAI (:func:`jointiq.evaluation.rd.read_per_image`), or
    RD files. Of several curves of runs in a place the full model comes first.

    Raises:
        DataError: a place without a curve.
    """
    curves: list[CurveFile] = []
    for place in places:
        curves += _inside(place) if place.is_dir() else [CurveFile(place, read_rd(place))]
    return [file.curve for file in _distinct(curves)]


def _inside(folder: Path) -> list[CurveFile]:
    """Return the curves of runs in a folder, or that of its per-image files, or those of its RD files."""
    found = find_curves([folder])
    if of_runs := [file for file in found if file.place]:
        return of_runs
    try:
        return [CurveFile(folder, read_per_image(folder))]
    except DataError:
        if not found:
            raise
    return found


def _nearest_to_full_model(file: CurveFile) -> tuple[bool, int]:
    """Return a sort key that is largest for the full model with the fewest overrides."""
    return file.experiment == FULL_MODEL, -len(file.curve.about.get(TYPED) or ())


def find_compared(results: Sequence[Path], anchors: Sequence[Path]) -> tuple[list[CurveFile], list[CurveFile]]:
    """Return the curves to compare: models and anchors.

    Args:
        results: folders or RD files of models; folders named ``anchors`` in them hold anchors.
        anchors: folders or RD files of anchors; empty: those in ``results``. A file named in ``results`` counts as a
            model, even if it is among the anchors.

    Raises:
        DataError: no RD file of a model, a place that does not exist, or an RD file that cannot be a curve.
    """
    models = find_curves(results, anchors=False)
    if not models:
        named = ", ".join(map(str, results))
        made = f"{program('evaluate')} output=FILE makes them"
        raise DataError(f"no RD files in {named} (anchors not counted); {made}")
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
    # Without "results" a single number is no curve: status.json has a bpp, too.
    return "bpp" in results if isinstance(results, dict) else isinstance(document.get("bpp"), list)


def _distinct(files: list[CurveFile]) -> list[CurveFile]:
    """Return the curves; the file is added to names that several share."""
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
    """Return whether two curves may be of the same images: they are, or one (published) does not list its images."""
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
    """Return :func:`compare_pairs`, with at least one BD-rate.

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
        f"with an ablation beside it; anchors come from {program('anchors')}, models from {program('evaluate')}"
    )


def compare_pairs(models: Sequence[CurveFile], anchors: Sequence[CurveFile], method: str = "pchip") -> Comparison:
    """Compute the BD-rates of all models against all anchors, and of ablations against their full model.

    Other curves of runs with the same images are compared with one another, each with the one that it is most like.

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
    """Return the BD-rates of curves of runs against one another, without those in ``laid_out``.

    Of the curves with the same images each is compared with the one before it, from the full model on, that it differs
    from in the fewest settings.
    """
    pairs: list[tuple[RDCurve, RDCurve]] = []
    for images in dict.fromkeys(image_set(file.curve) for file in models):
        alike = [file for file in models if image_set(file.curve) == images]
        enough = [file for file in alike if len(file.curve) >= MIN_POINTS]
        for file in (file for file in alike if file not in enough):
            reason = f"{file.curve.name} has {len(file.curve)} points; BD-rate needs at least {MIN_POINTS}"
            left_out += [LeftOut(TOO_FEW, file.curve.name, metric, reason, file.curve.name) for metric in METRICS]
        enough.sort(key=_nearest_to_full_model, reverse=True)
        for index, file in enumerate(enough):
            if index and file not in laid_out:
                anchor = min(enough[:index], key=lambda other: len(_differences(other, file)))
                pairs.append((_named_beside(anchor.curve, file.curve), _named_beside(file.curve, anchor.curve)))
    return [
        rate for metric in METRICS for pair in pairs if (rate := _rate(*pair, metric, method, left_out)) is not None
    ]


def _differences(one: CurveFile, other: CurveFile) -> set[str]:
    """Return the keys of the settings in which the runs of two curves differ."""
    typed = [set(file.curve.about.get(TYPED) or ()) for file in (one, other)]
    keys = {text.partition("=")[0] for text in typed[0] ^ typed[1]}
    return keys if one.experiment == other.experiment else {*keys, "+experiment"}


def _named_beside(curve: RDCurve, other: RDCurve) -> RDCurve:
    """Return ``curve`` with all settings in its name in which its runs differ from those of ``other``."""
    shared = {*(other.about.get(TYPED) or ()), *curve.name.split()}
    return replace(curve, name=" ".join([curve.name, *(t for t in curve.about.get(TYPED) or () if t not in shared)]))


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison: for each metric against anchors and between models, then each Table 2."""
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
        table.rows.append((rate.anchor, rate.test, bd_percent(rate), *_range(rate)))
    return table


def print_comparison(comparison: Comparison) -> None:
    """Print the tables, and the left-out pairs to stderr."""
    print_rates(tables(comparison))
    for line in comparison.left_out_by_kind():
        print(f"left out: {line}", file=sys.stderr)


def print_rates(of: Sequence[Table]) -> None:
    """Print tables of BD-rates, and what their marks mean."""
    for table in of:
        table.print()
    if any(cell.endswith("*") for table in of for row in table.rows for cell in row):
        print(MARKED)


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
        ours = [bd_percent(rate, sign=False) if rate else NOTHING for rate in (psnr, ms_ssim)]
        table.rows.append((label, f"{paper:.2f}", ours[0], *details, ours[1]))
    return table


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write ``bdrate.md``, ``.tex`` (LaTeX), ``.csv`` and ``.json`` into ``folder``."""
    laid_out = tables(comparison)
    texts = [table.markdown() for table in laid_out]
    texts.append(
        "The overlap is the range of quality both curves cover, over which the mean is taken, and its share of "
        "what either covers; nothing is extrapolated. Points are those of the anchor (or full model) and of the model. "
        f"MS-SSIM in dB is -10 log10(1 - mean MS-SSIM). {MARKED}.\n"
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
    files = [folder / f"bdrate.{suffix}" for suffix in ("md", "tex", "csv", "json")]
    write_text(files[0], "\n".join(texts))
    write_text(files[1], "\n".join(table.latex() for table in laid_out))
    write_text(files[2], rows_as_csv(rows))
    write_text(files[3], json.dumps(document, indent=1) + "\n")
    return files
