"""What a run is called: a key of its configuration, the folder named by it, and the curve that it is a point of.

A curve is all that runs have in common which differ in lambda (and seed) only.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jointiq.configs import UnknownRatePoint, choices, rate_point

# What decides where and how conveniently a run runs, not what it learns.
_NOT_HASHED = (
    "paths", "logger", "callbacks", "ckpt_path", "rerun", "resume", "threads", "sweep", "rates", "scale",
    "optimized_metric", "tags", "test", "typed", "tf32",
)  # fmt: skip
_NOT_HASHED_TRAINER = ("accelerator", "devices", "strategy", "num_nodes", "benchmark")
_NOT_HASHED_OPTIM = ("compile",)
_NOT_HASHED_DATA = ("num_workers", "preload_mb", "at_paper_scale")
# The entropy model that a model had before there was a choice: runs of today find the folders of earlier versions.
_FIRST_ENTROPY_MODELS = {
    "balle2017": "factorized",
    "coarse_to_fine": "coarse_to_fine",
    "jointiq": "context",
    "lee2019_hybrid": "hybrid",
}


#: Groups whose options make another system: folders and curves are named by those that were typed.
PARTS = ("model", "entropy_model", "enhancer", "stage", "distortion", "optim", "rates")
# What is typed and does not tell curves apart.
_NOT_TOLD = {*_NOT_HASHED, "experiment", "lmbda", "seed", "init_from", "hydra"} - {"rates", "scale"}
_NOT_TOLD |= {"trainer", *(f"trainer.{key}" for key in _NOT_HASHED_TRAINER)}
# Values that lambda brings with it, unless they are typed: a row of ``rates``, and by group where they arrive.
_BY_LAMBDA = {"model": ("N", "M", "M1", "M2"), "trainer": ("max_steps",), "optim": ("lr",)}


def run_key(cfg: DictConfig) -> str:
    """``lmbdaL_seedS_HASH``: the same for the same resolved configuration, whatever machine it runs on."""
    return f"lmbda{cfg.lmbda:g}_seed{cfg.seed}_{_digest(_identity(cfg))}"


def curve_key(cfg: DictConfig, start: object = None) -> str:
    """Return what runs have in common that differ in lambda (and what it brings) and in the seed only.

    Args:
        start: what stands for ``init_from``.
    """
    parts = _identity(cfg)
    del parts["lmbda"], parts["seed"]
    parts["init_from"] = start
    for group, fields in _BY_LAMBDA.items():
        for name in fields:
            if name in parts[group] and _is_of_table(cfg, name, parts[group][name]):
                parts[group][name] = "by lambda"
    return _digest(parts)


def _is_of_table(cfg: DictConfig, name: str, value: object) -> bool:
    try:
        known = rate_point(name, _root_=cfg)
    except UnknownRatePoint:
        return False
    return isinstance(value, int | float) and isinstance(known, int | float) and math.isclose(value, known)


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _identity(cfg: DictConfig) -> dict[str, Any]:
    """All that decides what a run learns, resolved."""
    parts: dict[str, Any] = {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in cfg.items()
        if key not in _NOT_HASHED
    }
    skipped = {"trainer": _NOT_HASHED_TRAINER, "optim": _NOT_HASHED_OPTIM, "data": _NOT_HASHED_DATA}
    for group, keys in skipped.items():
        parts[group] = {key: value for key, value in parts[group].items() if key not in keys}
    # The folder of the test images is for measuring; before it was, runs had none.
    if parts["data"].get("test_dir") is not None:
        parts["data"]["test_dir"] = None
    # Adam was the only optimizer once, and its runs keep their names.
    if parts["optim"].get("_target_") == "torch.optim.Adam":
        del parts["optim"]["_target_"]
    model = parts["model"]
    # Nothing reads these of a model of one rate, and older runs lack them.
    if model.get("rates", "one") == "one":
        for group, keys in {"model": ("rates", "levels"), "distortion": ("lmbda_range", "balance")}.items():
            parts[group] = {key: value for key, value in parts[group].items() if key not in keys}
        model = parts["model"]
    if model.get("entropy_model") == _FIRST_ENTROPY_MODELS.get(model["name"]):
        model.pop("entropy_model", None)
    return parts


def run_folder(cfg: DictConfig) -> Path:
    """``paths.run_dir`` where it is given, else ``RESULTS/runs/EXPERIMENT[-GROUP=OPTION...]/KEY``.

    The options are those typed for :data:`PARTS`. A folder of an earlier version, which lacks them, is found.
    """
    if cfg.paths.run_dir is not None:
        return Path(cfg.paths.run_dir)
    runs, key = Path(cfg.paths.results) / "runs", run_key(cfg)
    named = runs / "-".join([cfg.experiment_name, *(text.replace("/", "_") for text in _parts(cfg.typed))]) / key
    earlier = runs / cfg.experiment_name / key
    return earlier if earlier.is_dir() and not named.is_dir() else named


def what_is_typed(overrides: Iterable[str]) -> list[str]:
    """Return the ``key=value`` of ``overrides`` that make another curve, sorted.

    The experiment, lambda and seed do not count, nor how a run runs, nor an option that the experiment has anyway.
    """
    texts = list(overrides)
    told = sorted(text.lstrip("+") for text in texts if _is_told(text.lstrip("+~").partition("=")[0]))
    if not list(_parts(told)):
        return told
    usual = choices("train", [text for text in texts if text.lstrip("+").startswith("experiment=")])
    return [text for text in told if usual.get(text.partition("=")[0]) != text.partition("=")[2]]


def curve_name(experiment: str, stage: str, distortion: str, typed: Sequence[str] = ()) -> str:
    """Name of the curve that the rate points of an experiment make: with other parts, of a later stage, with another
    loss it is another one."""
    chosen = [text for text in _parts(typed) if not text.startswith(("stage=", "distortion="))]
    parts = [experiment, *chosen, "" if stage == "joint" else stage, "" if distortion == "mse" else distortion]
    return " ".join(part for part in parts if part)


def _is_told(key: str) -> bool:
    first = re.split("[/.@]", key)[0]
    return key not in _NOT_TOLD and (first == "trainer" or first not in _NOT_TOLD)


def _parts(typed: Iterable[str]) -> Iterable[str]:
    return (text for text in typed if text.partition("=")[0] in PARTS)
