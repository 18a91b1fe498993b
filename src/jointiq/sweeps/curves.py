"""What a sweep comes down to: the rate-distortion curves of its runs' last validations.

A rate is the estimate, and the images are those of the validation: curves to see where a sweep stands by.
``src.evaluate`` measures files, on test images.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from jointiq.errors import DataError, UserError
from jointiq.evaluation.metrics import mean
from jointiq.evaluation.rd import MS_SSIM, PSNR, RDCurve, write_rd
from jointiq.runs.folder import CONFIG, DONE, last_validation, read_config, stage_folders
from jointiq.runs.name import curve_name

#: Key in an RD file's results -> column of metrics.csv.
_COLUMNS = {"bpp": "val/bpp", PSNR: "val/psnr", MS_SSIM: "val/ms_ssim"}


def close_sweep(record: Path) -> None:
    """Write the curves of a sweep and hand them to what closes it, where a logger has that (``logger.NAME.closing``).

    Nothing happens without such a logger. A problem is told on stderr; the sweep itself stands.

    Args:
        record: the sweep's folder. ``record/curves/NAME.json`` are the curves.
    """
    try:
        folders = finished_runs(record)
        closed = [one for cfg in map(read_config, folders) for one in cfg.logger.values() if one.get("closing")]
        if closed:
            close = hydra.utils.get_method(closed[0].closing)
            close(record, write_curves(record, folders), OmegaConf.to_container(closed[0], resolve=True))
    except UserError as error:
        print(f"the sweep has no closing run: {error}", file=sys.stderr, flush=True)


def finished_runs(record: Path) -> list[Path]:
    """Folders of a sweep's finished runs, in the order of its jobs; of a chain of stages, the last stage's."""
    folders = []
    for path in sorted((record / "jobs").glob("*.json"), key=lambda path: int(path.stem)):
        folder = json.loads(path.read_text())["folder"]
        if folder is None or not (Path(folder) / DONE).is_file():
            continue
        stages = [at for at in stage_folders(Path(folder)) if (at / CONFIG).is_file()]
        folders.append(stages[-1] if stages else Path(folder))
    return folders


def write_curves(record: Path, folders: Sequence[Path]) -> Path:
    """Write an RD file for each curve that the runs in ``folders`` are points of; their folder, ``record/curves``.

    A point is a lambda, the mean over the runs that share it (seeds). Its numbers are means over validation images.

    Raises:
        DataError: no run has validated.
    """
    points: dict[str, dict[float, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        cfg = read_config(folder)
        means = last_validation(folder)
        if found := {key: means[column] for key, column in _COLUMNS.items() if column in means}:
            name = curve_name(cfg.experiment_name, cfg.stage.name, cfg.distortion.name)
            points[name][float(cfg.lmbda)].append(found)
    if not points:
        raise DataError(f"no finished run of {record} has validated")
    for name, of_curve in points.items():
        write_rd(record / "curves" / f"{name.replace(' ', '_')}.json", _curve(name, of_curve))
    return record / "curves"


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
