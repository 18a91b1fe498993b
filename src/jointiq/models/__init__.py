"""One file per published system, each a :class:`jointiq.models.base.LearnedCodec` (a CompressAI ``CompressionModel``).

To add one: put a file into this folder whose class derives from ``LearnedCodec`` and carries CompressAI's
``@register_model("name")``, and a YAML file with ``name: name`` and values for its settings into ``conf/model``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jointiq.errors import ConfigError

if TYPE_CHECKING:
    from jointiq.models.base import LearnedCodec

__all__ = ["build_model", "model_classes"]


@functools.cache
def model_classes() -> dict[str, type[LearnedCodec]]:
    """Return the models of this folder by their registered names."""
    # At the first call and not at import, because modules of this folder import this one; nor does whoever imports it
    # have to wait for PyTorch.
    from compressai.registry import MODELS

    from jointiq.models.base import LearnedCodec

    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: cls for name, cls in MODELS.items() if inspect.isclass(cls) and issubclass(cls, LearnedCodec)}


def build_model(config: Mapping[str, Any]) -> LearnedCodec:
    """Build the model that ``config`` describes: its registered ``name``, its settings and those of its parts.

    Only models of this folder can be built, whatever the configuration says: it may come from a received file.

    Raises:
        ConfigError: unknown name, unknown or missing key, or a value that is not allowed.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in model_classes():
        raise ConfigError("model.name", name, sorted(model_classes()))
    return model_classes()[name](**arguments)
