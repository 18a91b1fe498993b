"""Values that a config takes from the rate table and the scale: ``${rate_point:N}``, ``${scaled:grdn.kernels,32}``."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf


class UnknownRatePoint(LookupError):
    """``lmbda`` is not in the rate table and the scale does not give the value either."""


def rate_point(field: str, *, _root_: DictConfig) -> Any:
    """Value of ``field`` (N, M, max_steps or lr): the scale's where it has one, else that of the row of ``lmbda``.

    A stage that has steps of its own (``stage.max_steps``) wins over both.

    Raises:
        UnknownRatePoint: the scale leaves the value open and no row of ``rates.table`` has this ``lmbda``.
    """
    value = _root_.stage.max_steps if field == "max_steps" else None
    if value is not None:
        return value
    value = _root_.scale[field]
    if value is not None:
        return value
    for row in _root_.rates.table:
        if isinstance(_root_.lmbda, int | float) and math.isclose(row.lmbda, _root_.lmbda):
            return row[field]
    raise UnknownRatePoint(f"lmbda={_root_.lmbda} is not in the rate table")


def scaled(key: str, own: Any, *, _root_: DictConfig) -> Any:
    """Value of ``scale.<key>``, or ``own`` where the scale leaves it null."""
    value = OmegaConf.select(_root_.scale, key)
    return own if value is None else value


def register() -> None:
    """Make the resolvers known to OmegaConf; may be called more than once."""
    OmegaConf.register_new_resolver("rate_point", rate_point, replace=True)
    OmegaConf.register_new_resolver("scaled", scaled, replace=True)
