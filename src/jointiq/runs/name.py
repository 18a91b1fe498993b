"""Names of runs: a key made of the configuration, the folder named by it, and the RD curve that the run is a point of.

Runs that differ only in lambda (and seed) are points of one curve.
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

# Keys that decide where and how a run runs, not what it learns.
_NOT_HASHED = (
    "paths", "logger", "callbacks", "ckpt_path", "rerun", "resume", "threads", "sweep", "rates", "scale",
    "optimized_metric", "tags", "test", "typed", "tf32",
)  # fmt: skip
_NOT_HASHED_TRAINER = ("accelerator", "devices", "strategy", "num_nodes", "benchmark")
_NOT_HASHED_OPTIM = ("compile",)
_NOT_HASHED_DATA = ("num_workers", "preload_mb", "at_paper_scale")
# The entropy model that each model had before there was a choice: these runs keep their keys.
_FIRST_ENTROPY_MODELS = {
    "balle2017": "factorized",
    "coarse_to_fine": "coarse_to_fine",
    "jointiq": "context",
    "lee2019_hybrid": "hybrid",
}

#: Groups whose options make another system: the options that were typed are part of the names of folders and curves.
PARTS = ("model", "entropy_model", "enhancer", "stage", "distortion", "optim", "rates")
# Overrides of these keys do not make another curve.
_NOT_IN_CURVE_NAMES = {*_NOT_HASHED, "experiment", "lmbda", "seed", "init_from", "hydra"} - {"rates", "scale"}
_NOT_IN_CURVE_NAMES |= {"trainer", *(f"trainer.{key}" for key in _NOT_HASHED_TRAINER)}
# Values that come with lambda from a row of ``rates``, unless they are typed; by the group that they fill.
_BY_LAMBDA = {"model": ("N", "M", "M1", "M2"), "trainer": ("max_steps",), "optim": ("lr",)}


def run_key(cfg: DictConfig) -> str:
    """Return ``lmbdaL_seedS_HASH``, or ``all_rates_...``: the same for the same configuration on every machine."""
    rate = "all_rates" if has_all_rates(cfg) else f"lmbda{cfg.lmbda:g}"
    return f"{rate}_seed{cfg.seed}_{_digest(_identity(cfg))}"


def has_all_rates(cfg: DictConfig) -> bool:
    """Return whether a run trains a model of all rates; its ``lmbda`` is then read by nothing."""
    return bool(cfg.model.get("rates", "one") != "one")


def curve_key(cfg: DictConfig, start: object = None) -> str:
    """Return a key that is the same for runs that differ only in lambda, the values that come with it, and the seed.

    Args:
        start: takes the place of ``init_from``.
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
    """Return the resolved values that decide what a run learns."""
    parts: dict[str, Any] = {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in cfg.items()
        if key not in _NOT_HASHED
    }
    skipped = {"trainer": _NOT_HASHED_TRAINER, "optim": _NOT_HASHED_OPTIM, "data": _NOT_HASHED_DATA}
    for group, keys in skipped.items():
        parts[group] = {key: value for key, value in parts[group].items() if key not in keys}
    # The test images do not influence the training; null is what runs of earlier versions had.
    if parts["data"].get("test_dir") is not None:
        parts["data"]["test_dir"] = None
    # Earlier versions had no optimizer but Adam; its runs keep their keys.
    if parts["optim"].get("_target_") == "torch.optim.Adam":
        del parts["optim"]["_target_"]
    model = parts["model"]
    # A model of one rate does not read these, and earlier versions lack them.
    if not has_all_rates(cfg):
        for group, keys in {"model": ("rates", "levels"), "distortion": ("lmbda_range", "balance")}.items():
            parts[group] = {key: value for key, value in parts[group].items() if key not in keys}
        model = parts["model"]
    if model.get("entropy_model") == _FIRST_ENTROPY_MODELS.get(model["name"]):
        model.pop("entropy_model", None)
    return parts


def run_folder(cfg: DictConfig) -> Path:
    """Return ``paths.run_dir`` where it is given, else ``RESULTS/runs/EXPERIMENT[-GROUP=OPTION...]/KEY``.

    The options are those typed for :data:`PARTS`. A folder of an earlier version, without them in its name, is found.
    """
    if cfg.paths.run_dir is not None:
        return Path(cfg.paths.run_dir)
    runs, key = Path(cfg.paths.results) / "runs", run_key(cfg)
    named = runs / "-".join([cfg.experiment_name, *(text.replace("/", "_") for text in _parts(cfg.typed))]) / key
    earlier = runs / cfg.experiment_name / key
    return earlier if earlier.is_dir() and not named.is_dir() else named


def curve_overrides(overrides: Iterable[str]) -> list[str]:
    """Return those of ``overrides`` that make another curve, sorted.

    Left out are the experiment, lambda, the seed, keys that only decide how a run runs, and options that the
    experiment has anyway.
    """
    texts = list(overrides)
    told = sorted(text.lstrip("+") for text in texts if _changes_curve(text.lstrip("+~").partition("=")[0]))
    if not list(_parts(told)):
        return told
    usual = choices("train", [text for text in texts if text.lstrip("+").startswith("experiment=")])
    return [text for text in told if usual.get(text.partition("=")[0]) != text.partition("=")[2]]


def curve_name(experiment: str, stage: str, distortion: str, typed: Sequence[str] = ()) -> str:
    """Return the name of a curve: the experiment and, where they differ from its own, parts, stage and distortion."""
    chosen = [text for text in _parts(typed) if not text.startswith(("stage=", "distortion="))]
    parts = [experiment, *chosen, "" if stage == "joint" else stage, "" if distortion == "mse" else distortion]
    return " ".join(part for part in parts if part)


def _changes_curve(key: str) -> bool:
    first = re.split("[/.@]", key)[0]
    return key not in _NOT_IN_CURVE_NAMES and (first == "trainer" or first not in _NOT_IN_CURVE_NAMES)


def _parts(typed: Iterable[str]) -> Iterable[str]:
    return (text for text in typed if text.partition("=")[0] in PARTS)
