"""Quality-enhancement networks Q (JointIQ-Net section 3.1): image in, image out; they know nothing of compression.

To add one: put a file into this folder whose class carries ``@register_enhancer("name")``, and a YAML file with
``name: name`` and the constructor's arguments into ``conf/enhancer``. Nothing else is touched: every module of the
folder is imported with the package.

An enhancer maps (B, 3, H, W), about [-1, 1], to the same shape for any H, W >= 1; its output is not clamped.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from jointiq.errors import ConfigError

_ENHANCERS: dict[str, type[nn.Module]] = {}
_Enhancer = TypeVar("_Enhancer", bound=type[nn.Module])


def register_enhancer(name: str) -> Callable[[_Enhancer], _Enhancer]:
    """Class decorator: make an enhancer known to :func:`build_enhancer` under ``name``.

    Raises:
        ValueError: another class has this name already.
    """

    def register(cls: _Enhancer) -> _Enhancer:
        if name in _ENHANCERS:
            raise ValueError(f"two enhancers are named {name!r}: {_ENHANCERS[name].__qualname__}, {cls.__qualname__}")
        _ENHANCERS[name] = cls
        return cls

    return register


def enhancer_names() -> list[str]:
    """The names that ``enhancer.name`` may take."""
    return sorted(_ENHANCERS)


def build_enhancer(config: Mapping[str, Any] | None) -> nn.Module | None:
    """Build the enhancer that ``config`` describes; ``None`` builds none.

    Only registered classes can be built, whatever the configuration says: it may come from a received model file.

    Args:
        config: ``{"name": "grdn", **arguments of the class}``.

    Raises:
        ConfigError: an unknown name, an unknown or missing argument, or a value the enhancer refuses.
    """
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise ConfigError("enhancer", config, 'null or a mapping such as {"name": "grdn"}')
    arguments = {key: value for key, value in config.items() if key != "name"}
    name = config.get("name")
    if not isinstance(name, str) or name not in _ENHANCERS:
        raise ConfigError("enhancer.name", name, enhancer_names())
    cls = _ENHANCERS[name]
    parameters = inspect.signature(cls).parameters
    for key, value in arguments.items():
        if key not in parameters:
            raise ConfigError(f"enhancer.{key}", value, f"the keys of {name}: {', '.join(parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ConfigError(f"enhancer.{key}", None, f"{name} needs a value for it")
    return cls(**arguments)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
