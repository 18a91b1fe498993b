"""Results of a sweep: rate-distortion curves of its runs, a plot of them, and BD-rates.

The points are the RD points of the runs (:mod:`jointiq.runs.rd_point`). Where no run was measured, a sweep that is
logged in W&B has curves of the last validations instead: estimated rates on the validation images.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from jointiq.errors import DataError, UserError
from jointiq.evaluation.bd_rate import MIN_POINTS
from jointiq.evaluation.comparison import compare_pairs, find_curves, print_comparison, write_comparison
from jointiq.evaluation.curves import is_of_runs, join_points
from jointiq.evaluation.metrics import mean
from jointiq.evaluation.rd import MS_SSIM, PSNR, RDCurve, read_rd, write_rd
from jointiq.runs.folder import CONFIG, DONE, RD_FILE, find_runs, last_validation, read_config, stage_folders
from jointiq.runs.name import curve_name
from jointiq.runs.rd_point import key_of_curve

#: Key in an RD file's results -> column of metrics.csv.
_COLUMNS = {"bpp": "val/bpp", PSNR: "val/psnr", MS_SSIM: "val/ms_ssim"}


def close_sweep(record: Path, results: Path = Path("results")) -> None:
    """Write the curves, plot and BD-rates of a sweep, print the BD-rates, and log all where a logger takes them.

    The BD-rates are of the curves against each other, and against anchors of the same images. A logger may name a
    function for the end of a sweep (``logger.NAME.closing``). Without such a logger and without measured runs nothing
    is written. An error is printed to stderr and does not fail the sweep.

    Args:
        record: the sweep's folder. ``record/curves/NAME.json`` are the curves, ``record/curves.png``, ``.svg`` and
            ``.pdf`` the plot, ``record/bdrate.md``, ``.tex``, ``.csv`` and ``.json`` the BD-rates.
        results: its folder ``anchors`` holds the anchors, beside those that ``logger.NAME.anchors`` names.
    """
    try:
        folders = finished_runs(record)
        closed = [one for cfg in map(read_config, folders) for one in cfg.logger.values() if one.get("closing")]
        settings: Any = OmegaConf.to_container(closed[0], resolve=True) if closed else {}
        if not settings and not _points(folders):
            return
        models = find_curves([write_curves(record, folders)])
        places = [results / "anchors"] if (results / "anchors").is_dir() else []
        anchors = find_curves([*places, *([Path(settings["anchors"])] if settings.get("anchors") else [])])
        comparison = compare_pairs(models, anchors)
        print_comparison(comparison)
        ours, others = [file.curve for file in models], [file.curve for file in anchors]
        written = [*_plot(record, ours, others)]
        if comparison.has_rates:
            written += write_comparison(record, comparison)
        elif comparison.left_out:
            print(f"no BD-rate yet: {comparison.left_out[0].reason}")
        print("written:", *written, flush=True)
        if closed:
            hydra.utils.get_method(closed[0].closing)(record, comparison, ours, others, settings)
    except UserError as error:
        print(f"the sweep has no curves: {error}", file=sys.stderr, flush=True)


def _plot(record: Path, models: Sequence[RDCurve], anchors: Sequence[RDCurve]) -> list[Path]:
    # Imported late, with Matplotlib.
    from jointiq.evaluation.plots.rd_plot import PAPER, rd_plot

    return rd_plot(record / "curves", models, anchors, suffixes=PAPER)


def finished_runs(record: Path) -> list[Path]:
    """Return the folders of a sweep's finished runs in the order of its jobs; of a chain, that of the last stage."""
    folders = []
    for folder in find_runs(record):
        if (folder / DONE).is_file():
            stages = [at for at in stage_folders(folder) if (at / CONFIG).is_file()]
            folders.append(stages[-1] if stages else folder)
    return folders


def too_few_rates(configs: Sequence[DictConfig]) -> str | None:
    """Return a warning if a curve of a sweep will have too few rates for a BD-rate; otherwise None."""
    rates: dict[str, set[float]] = defaultdict(set)
    for cfg in configs:
        rates[key_of_curve(cfg)].add(float(cfg.lmbda))
    least = min(map(len, rates.values()), default=MIN_POINTS)
    if least >= MIN_POINTS:
        return None
    lmbdas = "one lmbda" if least == 1 else f"{least} values of lmbda"
    return f"curves of {lmbdas}: too few rates for a BD-rate, which takes {MIN_POINTS} (lmbda=0.5,0.23,0.12,0.06)"


def write_curves(record: Path, folders: Sequence[Path]) -> Path:
    """Write an RD file for each curve of the runs in ``folders`` to ``record/curves``, and return that folder.

    A point is the mean over the runs of one lambda (its seeds). Its numbers are means over the test images, or over the
    validation images if none of the runs was measured.

    Raises:
        DataError: no run was measured or has validated.
    """
    curves = join_points(_points(folders)) or _validations(folders)
    if not curves:
        raise DataError(f"no finished run of {record} was measured or has validated")
    place = record / "curves"
    for stale in place.glob("*.*"):
        stale.unlink()
    for curve in curves:
        write_rd(place / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', curve.name)}.json", curve)
    return place


def _points(folders: Sequence[Path]) -> list[RDCurve]:
    points = [read_rd(folder / RD_FILE) for folder in folders if (folder / RD_FILE).is_file()]
    return [point for point in points if is_of_runs(point)]


def _validations(folders: Sequence[Path]) -> list[RDCurve]:
    points: dict[str, dict[float, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        cfg = read_config(folder)
        means = last_validation(folder)
        if found := {key: means[column] for key, column in _COLUMNS.items() if column in means}:
            name = curve_name(cfg.experiment_name, cfg.stage.name, cfg.distortion.name, cfg.get("typed") or ())
            points[name][float(cfg.lmbda)].append(found)
    return [_curve(name, of_curve) for name, of_curve in points.items()]


def _curve(name: str, points: Mapping[float, Sequence[dict[str, float]]]) -> RDCurve:
    means = [
        (f"{lmbda:g}", {key: mean(run.get(key) for run in runs) for key in _COLUMNS}) for lmbda, runs in points.items()
    ]
    means.sort(key=lambda point: point[1]["bpp"] or 0.0)
    results = {}
    for key in _COLUMNS:
        values = tuple(value for _, point in means if (value := point[key]) is not None)
        if len(values) == len(means):
            results[key] = values
    text = "last validation of each run: estimated rate, means over the validation images"
    return RDCurve(name, results, text, parameter=tuple(lmbda for lmbda, _ in means))
