"""What a run is called: a key of its configuration, the folder named by it, and the curve that it is a point of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# What decides where and how conveniently a run runs, not what it learns.
_NOT_HASHED = (
    "paths", "logger", "callbacks", "ckpt_path", "rerun", "resume", "threads", "sweep", "rates", "scale",
    "optimized_metric", "tags",
)  # fmt: skip
_NOT_HASHED_TRAINER = ("accelerator", "devices", "strategy", "num_nodes")
_NOT_HASHED_OPTIM = ("compile",)
_NOT_HASHED_DATA = ("num_workers", "preload_mb", "at_paper_scale")
# The entropy model that a model had before there was a choice: runs of today find the folders of earlier versions.
_FIRST_ENTROPY_MODELS = {
    "balle2017": "factorized",
    "coarse_to_fine": "coarse_to_fine",
    "jointiq": "context",
    "lee2019_hybrid": "hybrid",
}


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
    # Adam was the only optimizer once, and its runs keep their names.
    if parts["optim"].get("_target_") == "torch.optim.Adam":
        del parts["optim"]["_target_"]
    model = parts["model"]
    if model.get("entropy_model") == _FIRST_ENTROPY_MODELS.get(model["name"]):
        model.pop("entropy_model", None)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"lmbda{cfg.lmbda:g}_seed{cfg.seed}_{digest}"


def run_folder(cfg: DictConfig) -> Path:
    """``paths.run_dir`` where it is given, else ``RESULTS/runs/EXPERIMENT/KEY``."""
    if cfg.paths.run_dir is not None:
        return Path(cfg.paths.run_dir)
    return Path(cfg.paths.results) / "runs" / cfg.experiment_name / run_key(cfg)


def curve_name(experiment: str, stage: str, distortion: str) -> str:
    """Name of the curve that the rate points of an experiment make: a later stage, and another loss, is another one."""
    parts = [experiment, "" if stage == "joint" else stage, "" if distortion == "mse" else distortion]
    return " ".join(part for part in parts if part)
