"""A run's folder: its name, what is written into it besides the training, and what is never written over."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.files import write_text

# What decides where and how conveniently a run runs, not what it learns.
_NOT_HASHED = ("paths", "logger", "callbacks", "ckpt_path", "rates", "scale")
_NOT_HASHED_TRAINER = ("accelerator", "devices", "strategy", "num_nodes")
_NOT_HASHED_DATA = ("num_workers", "preload_mb")

_PACKAGES = ("torch", "lightning", "compressai", "hydra-core", "omegaconf", "numpy", "torchvision", "pytorch-msssim")


def run_key(cfg: DictConfig) -> str:
    """``lmbdaL_seedS_HASH``: the same for the same resolved configuration, whatever machine it runs on."""
    parts: dict[str, Any] = {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in cfg.items()
        if key not in _NOT_HASHED
    }
    for group, keys in (("trainer", _NOT_HASHED_TRAINER), ("data", _NOT_HASHED_DATA)):
        parts[group] = {key: value for key, value in parts[group].items() if key not in keys}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"lmbda{cfg.lmbda:g}_seed{cfg.seed}_{digest}"


def run_folder(cfg: DictConfig) -> Path:
    """``paths.run_dir`` where it is given, else ``RESULTS/runs/EXPERIMENT/KEY``."""
    if cfg.paths.run_dir is not None:
        return Path(cfg.paths.run_dir)
    return Path(cfg.paths.results) / "runs" / cfg.experiment_name / run_key(cfg)


def prepare(folder: Path, cfg: DictConfig) -> Path | None:
    """Create ``folder`` with ``config.yaml`` (resolved) and ``provenance.json``.

    A folder that already holds checkpoints is moved aside first, so that nothing trained is ever lost, unless this run
    continues that one (``ckpt_path`` lies inside).

    Returns:
        Where an earlier run was moved to; None if there was none.

    Raises:
        UserError: the files cannot be written.
    """
    continues = cfg.ckpt_path is not None and folder.resolve() in Path(cfg.ckpt_path).resolve().parents
    moved = None
    if (folder / "checkpoints").exists() and not continues:
        number = 1
        while folder.with_name(f"{folder.name}.old{number}").exists():
            number += 1
        moved = folder.rename(folder.with_name(f"{folder.name}.old{number}"))
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    write_text(folder / "provenance.json", json.dumps(provenance(), indent=2) + "\n")
    return moved


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
