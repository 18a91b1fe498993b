"""One file per published system, each a CompressAI ``CompressionModel``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressai.models import CompressionModel
from compressai.registry import MODELS

from src.errors import ConfigError
from src.models import jointiq  # noqa: F401  (registers its model)

__all__ = ["build_model"]

OUR_MODELS = ("jointiq",)


def build_model(config: Mapping[str, Any]) -> CompressionModel:
    """Build the model that ``config`` describes: its registered ``name`` plus the arguments of its constructor.

    Raises:
        ConfigError: unknown name, unknown key, or a value that the model does not allow.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in OUR_MODELS:
        raise ConfigError("model.name", name, OUR_MODELS)
    try:
        return MODELS[name](**arguments)
    except TypeError as error:
        raise ConfigError("model", arguments, f"the arguments of {name} ({error})") from error
