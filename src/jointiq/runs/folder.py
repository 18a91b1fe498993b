"""A run's folder: what is written into it besides the training, what is never written over, and whose run it holds."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from jointiq.errors import UserError
from jointiq.files import write_text
from jointiq.runs.name import run_key
from jointiq.runs.provenance import provenance

CONFIG = "config.yaml"
#: Exists once the run has trained all it was to train.
DONE = "done.json"
CHECKPOINT = Path("checkpoints") / "last.ckpt"

_STAGE = re.compile(r"\d+_[^.]+")
# Stands for the run's folder while a configuration is resolved.
_HERE = "\0run"


def prepare(folder: Path, cfg: DictConfig, checkpoint: str | None) -> Path | None:
    """Create ``folder`` with ``config.yaml`` and ``provenance.json``.

    A folder that already holds checkpoints is moved aside first, so that nothing trained is ever lost, unless this run
    continues that one.

    Args:
        checkpoint: the checkpoint this run continues; None: it starts anew.

    Returns:
        Where an earlier run was moved to; None if there was none.

    Raises:
        UserError: the files cannot be written.
    """
    moved = None if is_inside(folder, checkpoint) else move_aside(folder)
    (folder / DONE).unlink(missing_ok=True)
    for place in (folder, folder / "checkpoints"):
        for unfinished in place.glob(".*.*.*"):  # jointiq.files' temporary names, of a process that was killed
            unfinished.unlink()
    describe(folder, cfg)
    return moved


def move_aside(folder: Path) -> Path | None:
    """Rename ``folder`` to ``FOLDER.old1``, or the next number that is free; None where it holds no checkpoints."""
    if not (folder / "checkpoints").exists():
        return None
    number = 1
    while folder.with_name(f"{folder.name}.old{number}").exists():
        number += 1
    return folder.rename(folder.with_name(f"{folder.name}.old{number}"))


def describe(folder: Path, cfg: DictConfig) -> None:
    """Write ``config.yaml`` and ``provenance.json`` into ``folder``.

    The first holds every value, resolved; only paths inside the folder are written as ``${paths.run_dir}/...``, so that
    they follow when the run is repeated elsewhere.
    """
    here = copy.deepcopy(cfg)
    here.paths.run_dir = _HERE
    values: Any = _replace(OmegaConf.to_container(here, resolve=True), "${paths.run_dir}")
    values["paths"]["run_dir"] = str(folder)
    values["rerun"] = None
    write_text(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(values)))
    write_text(folder / "provenance.json", json.dumps(provenance(), indent=2) + "\n")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the run in ``folder`` that a training can go on from, the newest first."""
    last = folder / CHECKPOINT
    earlier = [path for path in last.parent.glob(f"{last.stem}-*{last.suffix}") if _age(path) > 0]
    return [path for path in (last, *sorted(earlier, key=_age)) if path.is_file()]


def _age(path: Path) -> int:
    """1 for ``last-1.ckpt``, the one before the last; 0 for other names."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def stage_folders(folder: Path) -> list[Path]:
    """Folders of the stages of the chain in ``folder``, by their numbers, without those moved aside (``.old1``)."""
    inside = folder.iterdir() if folder.is_dir() else ()
    stages = [path for path in inside if _STAGE.fullmatch(path.name) and path.is_dir()]
    return sorted(stages, key=lambda path: int(path.name.partition("_")[0]))


def mark_done(folder: Path, step: int) -> None:
    """Note that the run in ``folder`` is complete after ``step`` optimizer steps."""
    write_text(folder / DONE, json.dumps({"step": step}) + "\n")


def done_step(folder: Path) -> int:
    """Optimizer steps of the complete run in ``folder``."""
    return int(json.loads((folder / DONE).read_text())["step"])


def is_finished(folder: Path, cfg: DictConfig) -> bool:
    """Whether ``folder`` holds a complete run of exactly the configuration ``cfg``."""
    return (folder / DONE).is_file() and has_same_key(folder, cfg)


def has_same_key(folder: Path, cfg: DictConfig) -> bool:
    """Whether ``folder`` holds a run of the configuration ``cfg``, complete or not."""
    try:
        return run_key(read_config(folder)) == run_key(cfg)
    except (UserError, OmegaConfBaseException, KeyError, AttributeError):
        return False


def holds(folder: Path, cfg: DictConfig) -> bool:
    """As :func:`has_same_key`; what the run started from is not compared."""
    try:
        saved = read_config(folder)
        return run_key(_without_start(saved)) == run_key(_without_start(cfg))
    except (UserError, OmegaConfBaseException, KeyError, AttributeError):
        return False


def _without_start(cfg: DictConfig) -> DictConfig:
    cfg = copy.deepcopy(cfg)
    cfg.init_from = None
    return cfg


def read_config(folder: str | Path) -> DictConfig:
    """The configuration of the run in ``folder``.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = Path(folder) / CONFIG
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig) or "paths" not in loaded or "stage" not in loaded:
            raise ValueError("not a config")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"rerun={folder}: no {CONFIG} that src.train wrote; allowed: the folder of a run") from error
    OmegaConf.set_struct(loaded, True)
    return loaded


def is_inside(folder: Path, checkpoint: str | None) -> bool:
    """Whether the file ``checkpoint`` is somewhere in ``folder``."""
    return checkpoint is not None and folder.resolve() in Path(checkpoint).resolve().parents


def _replace(value: Any, by: str) -> Any:
    if isinstance(value, dict):
        return {key: _replace(item, by) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, by) for item in value]
    return value.replace(_HERE, by) if isinstance(value, str) else value
