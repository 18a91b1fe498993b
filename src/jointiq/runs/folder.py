"""A run's folder: config and provenance, checkpoints, whether the run is finished and which configuration it has."""

from __future__ import annotations

import copy
import csv
import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from jointiq.coding import CHECKPOINT
from jointiq.configs import ROOT, literal
from jointiq.errors import DataError, UserError
from jointiq.files import read_json, remove_unfinished, write_text
from jointiq.runs.job_notes import JOBS, job_notes
from jointiq.runs.name import run_key

CONFIG = "config.yaml"
#: Exists once the training is complete.
DONE = "done.json"
#: The run's point on rate-distortion curves (:mod:`jointiq.runs.rd_point`).
RD_FILE = "rd.json"

_STAGE = re.compile(r"\d+_[^.]+")
_MOVED_ASIDE = re.compile(r"\.old\d+$")
#: A number as Python writes it, finite or not.
_NUMBER = re.compile(r"-?(\d+(\.\d*)?(e[+-]?\d+)?|inf|nan)")
_RUN_DIR = "${paths.run_dir}"
#: Keys that every saved config must have, and their types.
_READ = {
    "paths.run_dir": str, "experiment_name": str, "stage.name": str, "distortion.name": str, "lmbda": int | float,
    "seed": int, "ckpt_path": str | None, "init_from": str | None, "model.name": str,
    **dict.fromkeys(("model", "rates", "enhancer", "optim", "data", "trainer", "callbacks", "logger"), DictConfig),
}  # fmt: skip
_PACKAGES = ("torch", "lightning", "compressai", "hydra-core", "omegaconf", "numpy", "torchvision", "pytorch-msssim")


def prepare(folder: Path, cfg: DictConfig, checkpoint: str | None) -> Path | None:
    """Create ``folder`` with ``config.yaml`` and ``provenance.json``.

    If the folder holds checkpoints of a run that this one does not continue, it is moved aside first, so that no
    training is lost.

    Args:
        checkpoint: the checkpoint that this run continues; None: it starts anew.

    Returns:
        The new place of an earlier run; None if there was none.

    Raises:
        UserError: the files cannot be written.
    """
    moved = None if is_inside(folder, checkpoint) else move_aside(folder)
    for stale in (DONE, RD_FILE):
        (folder / stale).unlink(missing_ok=True)
    for place in (folder, folder / "checkpoints"):
        remove_unfinished(place)
    describe(folder, cfg)
    return moved


def move_aside(folder: Path) -> Path | None:
    """Rename ``folder`` to ``FOLDER.old1``, or the next free number, and return that; None: it holds no checkpoints."""
    if not (folder / "checkpoints").exists():
        return None
    number = 1
    while folder.with_name(f"{folder.name}.old{number}").exists():
        number += 1
    return folder.rename(folder.with_name(f"{folder.name}.old{number}"))


def describe(folder: Path, cfg: DictConfig) -> None:
    """Write ``config.yaml`` and ``provenance.json`` into ``folder``.

    The config is resolved, except that paths inside the folder are written as ``${paths.run_dir}/...``, so that they
    follow when the run is repeated elsewhere.
    """
    here = copy.deepcopy(cfg)
    here.paths.run_dir = literal(str(folder))
    here.rerun = None
    values = _resolved(OmegaConf.to_container(here), OmegaConf.to_container(here, resolve=True))
    write_text(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(values)))
    write_text(folder / "provenance.json", json.dumps(provenance(), indent=2) + "\n")


def _resolved(written: Any, resolved: Any) -> Any:
    """Return the values of ``resolved``, but those that are ``written`` as paths in the run's folder from there."""
    if isinstance(written, dict):
        return {key: _resolved(item, resolved[key]) for key, item in written.items()}
    if isinstance(written, list):
        return [_resolved(*items) for items in zip(written, resolved, strict=True)]
    if isinstance(written, str) and _RUN_DIR in written:
        return written
    return literal(resolved) if isinstance(resolved, str) else resolved


def provenance() -> dict[str, Any]:
    """Return the command line, git revision and package versions of this process."""
    return {
        "command": ["python", "-m", "src.train", *sys.argv[1:]],
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> dict[str, Any]:
    """Return the commit of the source tree and whether it has uncommitted changes; nulls outside a git repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    changes = None if revision is None else git("status", "--porcelain")
    return {"revision": revision, "uncommitted_changes": None if changes is None else bool(changes)}


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder`` from which training can continue, the newest first."""
    last = folder / CHECKPOINT
    earlier = [path for path in last.parent.glob(f"{last.stem}-*{last.suffix}") if _age(path) > 0]
    return [path for path in (last, *sorted(earlier, key=_age)) if path.is_file()]


def _age(path: Path) -> int:
    """Return 1 for ``last-1.ckpt``, the checkpoint before the last, and so on; 0 for other names."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def stage_folders(folder: Path) -> list[Path]:
    """Return the folders of a chain's stages in ``folder``, by number, without those moved aside (``.old1``)."""
    inside = folder.iterdir() if folder.is_dir() else ()
    stages = [path for path in inside if _STAGE.fullmatch(path.name) and path.is_dir()]
    return sorted(stages, key=lambda path: int(path.name.partition("_")[0]))


def find_runs(place: Path) -> list[Path]:
    """Return the folders of the runs that ``place`` is or holds, in order; of a sweep, those of its jobs.

    The stages of a chain are one run. Runs that were moved aside are left out.

    Raises:
        DataError: a damaged note of a sweep's job.
    """
    if (place / JOBS).is_dir():
        return [job.folder for job in job_notes(place) if job.folder is not None and job.folder.is_dir()]
    if (place / CONFIG).is_file():
        return [place]
    inside = sorted(path.parent for path in place.rglob(CONFIG))
    tops = [path for path in inside if not any(other in path.parents for other in inside)]
    return [path for path in tops if not _MOVED_ASIDE.search(path.name)]


def mark_done(folder: Path, step: int) -> None:
    """Mark the run in ``folder`` as complete after ``step`` optimizer steps."""
    write_text(folder / DONE, json.dumps({"step": step}) + "\n")


def done_step(folder: Path) -> int:
    """Return the optimizer steps of the complete run in ``folder``.

    Raises:
        DataError: ``done.json`` is damaged.
    """
    done = read_json(folder / DONE)
    step = done.get("step") if isinstance(done, dict) else None
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise DataError(f"{folder / DONE} is damaged; allowed: remove it, and the same command ends the run anew")
    return step


def last_validation(folder: Path) -> dict[str, float]:
    """Return the means of the last validation of the run in ``folder``, such as ``val/loss``; empty before the first.

    They are read from ``metrics.csv``; in a chain of stages, from the last stage's.
    """
    logged = _logged([folder, *stage_folders(folder)][-1])
    validations = [{key: value for key, value in row.items() if key.startswith("val/")} for row in logged]
    return next((means for means in reversed(validations) if means), {})


def training_hours(folder: Path) -> float | None:
    """Return the hours that the optimizer steps of one run took, by its ``metrics.csv``; None where that is missing."""
    steps, seconds = 0.0, 0.0
    for row in _logged(folder):
        if row.get("steps_per_second", 0) > 0 and "step" in row:
            done = row["step"] + 1
            seconds += (done - steps) / row["steps_per_second"]
            steps = done
    return seconds / 3600 if steps else None


def _logged(folder: Path) -> list[dict[str, float]]:
    """Return the numbers in each row of the ``metrics.csv`` in ``folder``; no rows if it cannot be read."""
    try:
        with (folder / "metrics.csv").open(newline="", errors="replace") as stream:
            # Cells beyond the header go under "".
            rows = list(csv.DictReader(stream, restkey=""))
    except (OSError, csv.Error):
        return []
    return [{key: float(text) for key, text in row.items() if key and _NUMBER.fullmatch(text or "")} for row in rows]


def is_finished(folder: Path, cfg: DictConfig) -> bool:
    """Return whether ``folder`` holds a complete run of exactly the configuration ``cfg``."""
    return (folder / DONE).is_file() and has_same_key(folder, cfg)


def has_same_key(folder: Path, cfg: DictConfig) -> bool:
    """Return whether ``folder`` holds a run of the configuration ``cfg``, complete or not."""
    try:
        return run_key(read_config(folder)) == run_key(cfg)
    except (UserError, OmegaConfBaseException, KeyError, AttributeError, TypeError, ValueError):
        return False


def holds(folder: Path, cfg: DictConfig) -> bool:
    """Return whether ``folder`` holds a run of the configuration ``cfg``, whatever its initial weights."""
    try:
        saved = read_config(folder)
        return run_key(_without_start(saved)) == run_key(_without_start(cfg))
    except (UserError, OmegaConfBaseException, KeyError, AttributeError, TypeError, ValueError):
        return False


def _without_start(cfg: DictConfig) -> DictConfig:
    cfg = copy.deepcopy(cfg)
    cfg.init_from = None
    return cfg


def read_config(folder: str | Path) -> DictConfig:
    """Return the configuration of the run in ``folder``.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = Path(folder) / CONFIG
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise ValueError("not a config")
        for key, kind in _READ.items():
            value = OmegaConf.select(loaded, key, default=...)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ValueError(f"no {key}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"rerun={folder}: no {CONFIG} that src.train wrote; allowed: the folder of a run") from error
    OmegaConf.set_struct(loaded, True)
    return loaded


def is_inside(folder: Path, checkpoint: str | None) -> bool:
    """Return whether the file ``checkpoint`` is somewhere in ``folder``."""
    return checkpoint is not None and folder.resolve() in Path(checkpoint).resolve().parents
