"""Measure the rate-distortion point of a finished run on its test images, with real files: ``RUN/rd.json``.

It is an RD file as ``src.evaluate`` writes them, with one point, or several for a model of all rates. ``about`` tells
which curve it belongs to (see :mod:`jointiq.evaluation.curves`); lambda and seed are in every row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from jointiq.coding import CHECKPOINT
from jointiq.console import progress_bar
from jointiq.data import test_images
from jointiq.data.images import named_images
from jointiq.errors import DataError, UserError
from jointiq.evaluation.curves import CURVE, EXPERIMENT, TYPED
from jointiq.evaluation.measuring import Measured
from jointiq.evaluation.rd import MS_SSIM, PSNR, RDCurve, read_rd, write_rd
from jointiq.runs.folder import RD_FILE, read_config
from jointiq.runs.name import curve_key, curve_name
from jointiq.runtime import pick_device

#: Key in an RD file's ``results`` -> name in the log.
LOGGED = {"bpp": "test/bpp", PSNR: "test/psnr", MS_SSIM: "test/ms_ssim"}

_ROWS = ".rows"
_IMAGES = "test_images"


def images_of(cfg: DictConfig) -> list[Path]:
    """Return the images that a run is measured on: none with ``test=false``, or where the data config names none.

    Raises:
        UserError: a folder that is missing or empty.
    """
    if not cfg.test or not cfg.data.get("test_dir", True):
        return []
    return test_images(cfg.data)


def is_missing(folder: Path, cfg: DictConfig) -> bool:
    """Return whether the run in ``folder`` is not measured yet, or was measured on other images.

    Raises:
        UserError: see :func:`images_of`.
    """
    images = images_of(cfg)
    if not images:
        return False
    try:
        return read_rd(folder / RD_FILE).about.get(_IMAGES) != identity_of(images)
    except DataError:
        return True


def measure(folder: Path, cfg: DictConfig) -> RDCurve:
    """Code the test images with the checkpoint of the run in ``folder``; write and return its RD point.

    If it is stopped, the next call continues from the images that are done.

    Raises:
        UserError: the checkpoint cannot be opened, or every image failed.
    """
    # Imported late: commands that only ask for a point do not wait for PyTorch.
    from jointiq.evaluation.models import evaluate_checkpoints

    images = images_of(cfg)
    name = curve_name(cfg.experiment_name, cfg.stage.name, cfg.distortion.name, cfg.typed)
    device = pick_device("cpu" if cfg.trainer.accelerator == "cpu" else "auto")
    progress = progress_bar()
    progress.disable = not progress.console.is_terminal  # no line of a bar in a log
    with progress:
        task = progress.add_task("test", total=len(images), note="")

        def advance(done: Measured) -> None:
            progress.update(task, advance=1, note=done.image)

        curve = evaluate_checkpoints(
            [str(folder / CHECKPOINT)], images, name, device=str(device), advance=advance, rows=folder / _ROWS
        )
    about = {
        **curve.about,
        CURVE: key_of_curve(cfg),
        EXPERIMENT: cfg.experiment_name,
        TYPED: list(cfg.typed),
        _IMAGES: identity_of(images),
    }
    rows = tuple({**row, "lmbda": lambda_of(cfg, row.get("quality")), "seed": cfg.seed} for row in curve.images)
    curve = replace(curve, images=rows, about=about)
    write_rd(folder / RD_FILE, curve)
    shutil.rmtree(folder / _ROWS, ignore_errors=True)
    return curve


def lambda_of(cfg: DictConfig, quality: float | None) -> float:
    """Return the lambda of a run, or of a quality of its model of all rates."""
    # Imported late, with PyTorch.
    from jointiq.layers.gains import log_spaced

    return cfg.lmbda if quality is None else log_spaced(cfg.distortion.lmbda_range, quality)


def key_of_curve(cfg: DictConfig) -> str:
    """Return the key of the curve that a run is a point of.

    For runs that start from the weights of other runs, the curve of those counts, not the single checkpoint.
    """
    start = cfg.init_from
    if isinstance(start, str) and Path(start).parent.name == CHECKPOINT.parent.name:
        with contextlib.suppress(UserError):  # no run's folder: the path itself
            start = key_of_curve(read_config(Path(start).parents[1]))
    return curve_key(cfg, start)


def identity_of(images: Sequence[Path]) -> str:
    """Return a hash of the names and file sizes of images, the same wherever the images are."""
    listed = sorted((name, path.stat().st_size) for name, path in named_images(images))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
