"""Evaluate checkpoints with real files: ``python -m src.evaluate checkpoint=[A.ckpt,B.ckpt] output=OUT.json``.

Runs, sweeps, folders of runs and glob patterns stand for their checkpoints. Each curve has an RD file of its own. Runs
that differ only in the seed make one point, their mean, as in the curves of a sweep.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig
from rich.progress import Progress, TaskID

from jointiq.bitstream.container import require_quality
from jointiq.coding import CHECKPOINT
from jointiq.coding.shipped import path_of
from jointiq.console import progress_bar
from jointiq.data import test_images
from jointiq.errors import ConfigError, check_whole, run_cli
from jointiq.evaluation.curves import CURVE, EXPERIMENT, TYPED, join_points, point_name
from jointiq.evaluation.measuring import Measured, worker_count
from jointiq.evaluation.pictures import PictureFolder
from jointiq.evaluation.rd import RDCurve, write_rd
from jointiq.evaluation.tables import rd_table
from jointiq.runs.folder import find_runs, read_config, stage_folders
from jointiq.runs.name import curve_name
from jointiq.runs.rd_point import key_of_curve, lambda_of
from jointiq.runtime import pick_device, set_threads
from jointiq.typed import checked, hydra_command

if TYPE_CHECKING:
    from jointiq.evaluation.models import ModelMaker

#: Number of timed runs by the value of ``complexity``; None: complexity is not measured.
COMPLEXITY = {"none": None, "count": 0, "measure": 3}


def _checkpoints(value: object) -> dict[str, list[str]]:
    """Return the checkpoints of each curve by its name; "" is the curve of those given as files."""
    given = list(value) if isinstance(value, list | ListConfig) else [value]
    paths = [path for path in given if isinstance(path, str) and path]
    if not paths or len(set(paths)) < len(given):
        raise ConfigError("checkpoint", value, "a checkpoint's path, or a list of different ones: checkpoint=[A,B]")
    files: list[str] = []
    runs: list[Path] = []
    for path in paths:
        places = [Path(found) for found in sorted(glob.glob(path))] or [path_of(path)]
        folders = [
            run for place in places if place.is_dir() for run in find_runs(place) if (run / CHECKPOINT).is_file()
        ]
        alone = [str(place) for place in places if place.is_file()]
        if not folders and not alone:
            raise ConfigError(
                "checkpoint", path, "a file that exists" if not Path(path).is_dir() else "a folder of runs"
            )
        files += alone
        runs += folders
    curves = {"": list(dict.fromkeys(files))} if files else {}
    return curves | _by_curve(dict.fromkeys(runs))


def _by_curve(runs: Iterable[Path]) -> dict[str, list[str]]:
    """Return the checkpoints of runs by the names of their curves; runs of a curve differ only in lambda and seed."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        cfg = _config_of(run)
        name = curve_name(cfg.experiment_name, cfg.stage.name, cfg.distortion.name, cfg.get("typed") or ())
        found.setdefault((name, key_of_curve(cfg)), []).append(str(run / CHECKPOINT))
    names = [name for name, _ in found]
    return {
        name if names.count(name) == 1 else f"{name} {key}": checkpoints for (name, key), checkpoints in found.items()
    }


def _qualities(value: object) -> list[float] | None:
    """Return the qualities of models of all rates, given as a number or a list; None: the default ones."""
    if value is None:
        return None
    given = list(value) if isinstance(value, list | ListConfig) else [value]
    qualities = [require_quality(one) for one in given]
    if not qualities or len(set(qualities)) < len(qualities):
        raise ConfigError("quality", value, "null, a number from 1 to 100, or a list of different ones")
    return qualities


def _config_of(run: Path) -> DictConfig:
    """Return a run's config; of a chain of stages, that of the last stage."""
    return read_config([run, *stage_folders(run)][-1])


def _of_runs(curve: RDCurve, makers: Sequence[ModelMaker], refine: int) -> RDCurve:
    """Return a curve as one of runs: with a point for each lambda, the mean over its seeds, and what it belongs to."""
    configs = {maker.name: _config_of(Path(maker.checkpoint).parents[1]) for maker in makers}
    lambdas = {maker.name: lambda_of(configs[maker.name], maker.quality) for maker in makers}
    labels = {name: {"lmbda": lambdas[name], "seed": cfg.seed} for name, cfg in configs.items()}
    rows = tuple({**row, **labels[row["checkpoint"]]} for row in curve.images)
    cfg = configs[makers[0].name]
    # Refined files make a curve of their own.
    typed = [f"refine={refine}"] if refine else []
    about = {
        CURVE: " ".join([key_of_curve(cfg), *typed]),
        EXPERIMENT: cfg.experiment_name,
        TYPED: [*(cfg.get("typed") or ()), *typed],
    }
    (joined,) = join_points([replace(curve, images=rows).with_about(about)])
    return replace(joined, description=curve.description or joined.description).with_about(
        {**curve.about, **joined.about}
    )


def _maker_of_each_point(curve: RDCurve, makers: Sequence[ModelMaker]) -> list[ModelMaker]:
    """Return the model of each point; for a mean over seeds, that of the first seed."""
    by_name = {maker.name: maker for maker in makers}
    of_point = {point_name(row): row["checkpoint"] for row in reversed(curve.images) if "lmbda" in row}
    return [by_name[of_point.get(point, point)] for point in curve.parameter]


def _output(value: object) -> Path:
    if not isinstance(value, str) or not value.endswith(".json"):
        raise ConfigError("output", value, "the path of the RD file to write, ending in .json")
    return _writable("output", value)


def _writable(key: str, value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(key, value, "null or a path")
    folder = next(parent for parent in Path(value).resolve().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(key, value, f"a path in a folder that can be written; {folder} cannot")
    return Path(value)


def evaluate(cfg: DictConfig) -> int:
    """Run the evaluation that ``cfg`` (conf/evaluate.yaml) describes.

    Returns:
        1 if any decoder got other latents than the encoder or any image failed, else 0.
    """
    curves = _checkpoints(cfg.checkpoint)
    output = _output(cfg.output)
    pictures = None if cfg.pictures is None else PictureFolder(_writable("pictures", cfg.pictures), output.parent)
    cache = output.parent / ".rows" if cfg.resume else None
    if not isinstance(cfg.threads, int | None):
        raise ConfigError("threads", cfg.threads, "null or a whole number from 1 up")
    for key in ("name", "description"):
        if not isinstance(cfg[key], str | None):
            raise ConfigError(key, cfg[key], f"null or a text; a number in quotes: '{key}=\"1\"'")
    if cfg.complexity not in COMPLEXITY:
        raise ConfigError("complexity", cfg.complexity, COMPLEXITY)
    repeats = COMPLEXITY[cfg.complexity]
    qualities = _qualities(cfg.quality)
    check_whole("refine", cfg.refine, 0)
    workers, images = worker_count(cfg.workers), test_images(cfg.data)
    # Imported late, so that the checks above do not wait for PyTorch.
    from jointiq.evaluation.models import evaluate_checkpoints, makers_of, with_complexity

    device = pick_device(str(cfg.device))
    set_threads(cfg.threads)
    makers = {key: makers_of(checkpoints, str(device), qualities, cfg.refine) for key, checkpoints in curves.items()}
    count = sum(map(len, makers.values()))
    reused, made = 0, {}
    with progress_bar() as progress:
        task = progress.add_task("evaluate", total=count * len(images), note="")

        def advance(done: Measured) -> None:
            nonlocal reused
            reused += done.reused
            row = done.row
            note = "failed" if row is None else f"{row['bpp']:.3f} bpp {row['psnr']:.2f} dB"
            progress.update(task, advance=1, note=f"{done.image} {note}")

        for key, checkpoints in curves.items():
            file = _file_of(output, key if len(curves) > 1 else "")
            name = cfg.name or file.stem if len(curves) == 1 else f"{cfg.name or ''} {key or file.stem}".strip()
            curve = evaluate_checkpoints(
                checkpoints,
                images,
                name,
                cfg.description or "",
                str(device),
                advance,
                workers,
                cache,
                pictures,
                qualities,
                cfg.refine,
            )
            if key:
                curve = _of_runs(curve, makers[key], cfg.refine)
            if repeats is not None:
                counting = progress.add_task("complexity", total=len(curve), note="")
                counted = _maker_of_each_point(curve, makers[key])
                curve = with_complexity(curve, counted, repeats, partial(_step, progress, counting))
            made[file] = curve
    failed = unequal = False
    for file, curve in made.items():
        written = write_rd(file, curve)
        rd_table(curve).print()
        print("written:", *written)
        unequal |= _report_unequal(curve)
        failed |= _report_failed(curve)
    if reused:
        print(f"taken from an earlier run: {reused} of {count * len(images)} images")
    return int(unequal or failed)


def _step(progress: Progress, task: TaskID, note: str) -> None:
    progress.update(task, advance=1, note=note)


def _file_of(output: Path, curve: str) -> Path:
    """Return the RD file of a curve: ``OUT.json``, or ``OUT_CURVE.json`` if there are several."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", curve)
    return output.with_name(f"{output.stem}_{name}.json") if name else output


def _report_unequal(curve: RDCurve) -> bool:
    unequal = [f"{row['checkpoint']} {row['image']}" for row in curve.images if not row["latents_equal"]]
    if unequal:
        print(f"the decoder did not arrive at the encoder's latents: {', '.join(unequal)}")
    return bool(unequal)


def _report_failed(curve: RDCurve) -> bool:
    failed = curve.about.get("failed", [])
    for one in failed:
        print(f"failed, left out of every point: {one['image']} with {one['checkpoint']}: {one['problem']}")
    return bool(failed)


@hydra_command("evaluate")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_cli(lambda: evaluate(checked("evaluate", cfg)))


if __name__ == "__main__":
    main()
