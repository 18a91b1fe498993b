"""A run's folder: its name, what is written into it besides the training, what is never written over, and how to run it
again."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.errors import UserError
from src.files import write_text

# What decides where and how conveniently a run runs, not what it learns.
_NOT_HASHED = ("paths", "logger", "callbacks", "ckpt_path", "rerun", "resume", "sweep", "rates", "scale")
_NOT_HASHED_TRAINER = ("accelerator", "devices", "strategy", "num_nodes")
_NOT_HASHED_OPTIM = ("compile",)
_NOT_HASHED_DATA = ("num_workers", "preload_mb", "at_paper_scale")

CONFIG = "config.yaml"
#: Exists once the run has trained all it was to train.
DONE = "done.json"
CHECKPOINT = Path("checkpoints") / "last.ckpt"

# Stands for the run's folder while a configuration is resolved.
_HERE = "\0run"

_PACKAGES = ("torch", "lightning", "compressai", "hydra-core", "omegaconf", "numpy", "torchvision", "pytorch-msssim")


def run_key(cfg: DictConfig) -> str:
    """``lmbdaL_seedS_HASH``: the same for the same resolved configuration, whatever machine it runs on."""
    parts: dict[str, Any] = {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in cfg.items()
        if key not in _NOT_HASHED
    }
    skipped = {"trainer": _NOT_HASHED_TRAINER, "optim": _NOT_HASHED_OPTIM, "data": _NOT_HASHED_DATA}
    for group, keys in skipped.items():
        parts[group] = {key: value for key, value in parts[group].items() if key not in keys}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"lmbda{cfg.lmbda:g}_seed{cfg.seed}_{digest}"


def run_folder(cfg: DictConfig) -> Path:
    """``paths.run_dir`` where it is given, else ``RESULTS/runs/EXPERIMENT/KEY``."""
    if cfg.paths.run_dir is not None:
        return Path(cfg.paths.run_dir)
    return Path(cfg.paths.results) / "runs" / cfg.experiment_name / run_key(cfg)


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
    moved = None
    if (folder / "checkpoints").exists() and not _is_inside(folder, checkpoint):
        number = 1
        while folder.with_name(f"{folder.name}.old{number}").exists():
            number += 1
        moved = folder.rename(folder.with_name(f"{folder.name}.old{number}"))
    (folder / DONE).unlink(missing_ok=True)
    for place in (folder, folder / "checkpoints"):
        for unfinished in place.glob(".*.*.*"):  # src.files' temporary names, of a process that was killed
            unfinished.unlink()
    describe(folder, cfg)
    return moved


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


def again(folder: str | Path, overrides: Sequence[str]) -> DictConfig:
    """The configuration that repeats the run in ``folder``, in a folder beside it, ``FOLDER.rerun``.

    Args:
        overrides: ``key=value`` as typed, for single values of the saved configuration; they win.

    Raises:
        UserError: no configuration there, or an override that is not of that kind.
    """
    cfg = read_config(folder)
    continued = _is_inside(Path(cfg.paths.run_dir), cfg.ckpt_path)
    if "resume" not in cfg:
        OmegaConf.update(cfg, "resume", "auto", force_add=True)
    cfg.paths.run_dir = str(Path(folder).with_name(f"{Path(folder).resolve().name}.rerun"))
    cfg.rerun = str(folder)
    if continued:
        cfg.ckpt_path = None
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise UserError(f"{text}: {str(error).splitlines()[0]}") from error
        key = override.key_or_group
        known = OmegaConf.select(cfg, key, default=_HERE, throw_on_resolution_failure=False)
        plain = override.type == OverrideType.CHANGE and not override.is_sweep_override()
        if known == _HERE or OmegaConf.is_dict(known) or not plain:
            raise UserError(
                f"{text} does not go with rerun=; allowed: KEY=VALUE for a value of {Path(folder) / CONFIG}"
            )
        OmegaConf.update(cfg, key, override.value())
    return cfg


def command(**values: object) -> str:
    """The command line ``python -m src.train key=value ...``, quoted for a shell and for Hydra."""
    return shlex.join(["python", "-m", "src.train", *(override(key, value) for key, value in values.items())])


def override(key: str, value: object) -> str:
    """``key=value`` for Hydra's command line, the value quoted where it has to be."""
    text = str(value)
    if not re.fullmatch(r"[\w./+:%@-]+", text):
        # In Hydra's quotes a backslash is itself, unless it stands before a quote.
        text = "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), text) + "'"
    return f"{key}={text}"


def _is_inside(folder: Path, checkpoint: str | None) -> bool:
    return checkpoint is not None and folder.resolve() in Path(checkpoint).resolve().parents


def _replace(value: Any, by: str) -> Any:
    if isinstance(value, dict):
        return {key: _replace(item, by) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, by) for item in value]
    return value.replace(_HERE, by) if isinstance(value, str) else value


def provenance() -> dict[str, Any]:
    """Command line, git revision and package versions of this process."""
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
    """Commit of the source tree and whether it has uncommitted changes; nulls outside a git repository."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    changes = None if revision is None else git("status", "--porcelain")
    return {"revision": revision, "uncommitted_changes": None if changes is None else bool(changes)}
