"""Hydra's configs: where they are, how they are composed, and the resolvers that they use.

- ``${rate_point:N}``: the value in the row of the rate table that ``lmbda`` names.
- ``${scaled:stages.crop,96}``: the scale's value, else 96.
- ``${by_scale:32,{demo:8}}``: 8 at ``scale=demo``, else 32; for parts that have sizes of their own at each scale.
- ``${staged:KEY,VALUE}``: the stage's value, else VALUE.
- ``${job_gpus:}``: GPUs of a job, for launchers.
- ``${config_groups:}``: the list of groups in the help.
"""

from __future__ import annotations

import contextlib
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

_PACKAGE = Path(__file__).resolve().parent
#: An installed package holds its configs and weights itself; in a checkout they are beside ``src``.
INSTALLED = (_PACKAGE / "conf").is_dir()
#: The checkout, or the folder of the installed package.
ROOT = _PACKAGE if INSTALLED else _PACKAGE.parents[1]

#: Folders of Hydra's configs, of the trained models that come with the project, and of its studies.
CONFIGS = ROOT / "conf"
WEIGHTS = ROOT / "weights"
EXPERIMENTS = ROOT / "experiments"

_HELP_WIDTH = 80

#: What the loss of a model (:mod:`jointiq.models.objective`) may count: D, and units of R.
DISTORTIONS = ("mse", "ms_ssim")
RATE_UNITS = ("nats", "bits")


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the config ``name`` (``train``, ``evaluate``, ...) with ``overrides`` as typed.

    Raises:
        HydraException: an override that does not go with the configs.
    """
    if GlobalHydra.instance().is_initialized():
        return hydra_compose(name, overrides=list(overrides))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra_compose(name, overrides=list(overrides))


def choices(name: str, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return the option of each config group that ``overrides`` choose."""
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(CONFIGS), version_base="1.3"))
        places = GlobalHydra.instance().config_loader().get_search_path().get_path()
        return dict(_choices(name, tuple(overrides), tuple(place.path for place in places)))


@cache
def _choices(name: str, overrides: tuple[str, ...], places: tuple[str, ...]) -> DictConfig:
    """Return the same, cached for the stages of a chain and the jobs of a sweep; ``places`` is the search path."""
    return hydra_compose(name, list(overrides), return_hydra_config=True).hydra.runtime.choices


def literal(text: str) -> str:
    """Return ``text`` escaped for a config, where OmegaConf would read ``${`` as an interpolation."""
    return re.sub(r"(\\*)(\$\{)", r"\1\1\\\2", text)


def option_names(group: str) -> list[str]:
    """Return the options of a group in conf/; files that begin with "_" are no options."""
    return sorted(path.stem for path in (CONFIGS / group).glob("[!_]*.yaml"))


class UnknownRatePoint(LookupError):
    """``lmbda`` is not in the rate table, and the scale does not set the value either."""


def rate_point(field: str, *, _root_: DictConfig) -> Any:
    """Return ``field`` (N, M, M1, M2, max_steps or lr) of the scale, or else of the row of ``lmbda``.

    ``stage.max_steps`` and ``stage.lr`` take precedence over both. M1 and M2 are the two parts of a hybrid y; where
    only M is known, they are its halves (our choice).

    Raises:
        UnknownRatePoint: the scale has no value and no row of the table has this ``lmbda``.
    """
    value = _root_.stage.get(field) if field in ("max_steps", "lr") else None
    if value is None:
        value = _entry(_root_.scale, field)
    if value is not None:
        return value
    for row in rate_rows(_root_):
        if isinstance(_root_.lmbda, int | float) and math.isclose(row.lmbda, _root_.lmbda):
            return _entry(row, field)
    raise UnknownRatePoint(f"lmbda={_root_.lmbda} is not in the rate table")


def rate_rows(cfg: DictConfig) -> list[DictConfig]:
    """Return the rows of ``rates.table`` for the distortion in use: those that name it, and those that name none."""
    return [row for row in cfg.rates.table if row.get("distortion") in (None, cfg.distortion.name)]


def _entry(values: DictConfig, field: str) -> Any:
    if field in values or field not in ("M1", "M2") or values.M is None:
        return values.get(field)
    first = values.M // 2
    return first if field == "M1" else values.M - first


def scaled(key: str, own: Any, *, _root_: DictConfig) -> Any:
    """Return ``scale.<key>``, or ``own`` where the scale leaves it null."""
    value = OmegaConf.select(_root_.scale, key)
    return own if value is None else value


def by_scale(own: Any, sizes: Mapping[str, Any], *, _root_: DictConfig) -> Any:
    """Return the value in ``sizes`` for the name of the scale in use, or ``own`` where there is none."""
    return sizes.get(_root_.scale.name, own)


def staged(key: str, otherwise: Any, *, _root_: DictConfig) -> Any:
    """Return ``stage.<key>``, or ``otherwise`` where the stage has none."""
    value = _root_.stage.get(key)
    return otherwise if value is None else value


def job_gpus(*, _root_: DictConfig) -> int | None:
    """Return the GPUs that a job takes on each machine, ``trainer.devices``; None where it trains on CPUs."""
    return None if _root_.trainer.accelerator == "cpu" else _root_.trainer.devices


def config_groups() -> str:
    """Return the config groups and their options for ``--help``; names that begin with "_" are no options."""
    hydra = GlobalHydra.instance().hydra
    if hydra is None:
        return ""
    lines = []
    for group in sorted(hydra.list_all_config_groups()):
        if group.split("/")[0] != "hydra" and "/_" not in group:
            options = sorted(hydra.config_loader.get_group_options(group))
            text = f"{group}: {', '.join(option for option in options if not option.startswith('_'))}"
            lines += textwrap.wrap(text, _HELP_WIDTH, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def _register() -> None:
    OmegaConf.register_new_resolver("rate_point", rate_point, replace=True)
    OmegaConf.register_new_resolver("scaled", scaled, replace=True)
    OmegaConf.register_new_resolver("by_scale", by_scale, replace=True)
    OmegaConf.register_new_resolver("staged", staged, replace=True)
    OmegaConf.register_new_resolver("job_gpus", job_gpus, replace=True)
    OmegaConf.register_new_resolver("config_groups", config_groups, replace=True)


# Nothing in conf/ can be composed without them.
_register()
