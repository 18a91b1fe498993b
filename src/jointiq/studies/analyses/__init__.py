"""Analyses of a study's trained models: a module for each, with a function ``analyse(context, options)``.

To add one, add a module to this folder. Its name is the key under ``analyses`` in ``study.yaml``, and its ``OPTIONS``
are the names of the analysis's options.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from jointiq.errors import ConfigError
from jointiq.evaluation.bd_rate import METRICS
from jointiq.studies.context import Context, Findings
from jointiq.studies.plan import Scale

Analysis = Callable[[Context, Mapping[str, Any]], Findings]


def analysis_names() -> list[str]:
    """Return the names of all analyses."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_analyses(scale: Scale) -> None:
    """Check names and options of a study's analyses, and the metrics of its values, before anything is trained.

    Raises:
        ConfigError: an unknown analysis, option or metric.
    """
    for value in scale.values:
        if (metric := value.details.get("metric", "psnr")) not in METRICS:
            raise ConfigError("values.metric", metric, METRICS)
    for name, options in scale.analyses:
        get_analysis(name)
        known = _module(name).OPTIONS
        for key in options:
            if key not in known:
                raise ConfigError(f"analyses.{name}", key, sorted(known) or "no options")


def get_analysis(name: str) -> Analysis:
    """Return the function ``analyse`` of an analysis.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in analysis_names():
        raise ConfigError("analyses", name, analysis_names())
    function: Analysis = _module(name).analyse
    return function


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
