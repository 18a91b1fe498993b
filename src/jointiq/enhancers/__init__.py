"""Quality-enhancement networks Q (JointIQ-Net section 3.1): image in, image out; they know nothing of compression.

To add one: put a file into this folder whose class carries ``@register_enhancer("name", its settings)``, and a YAML
file with ``name: name`` and values for the settings into ``conf/enhancer``. Nothing else is touched: every module of
the folder is imported with the package.

An enhancer maps (B, 3, H, W), about [-1, 1], to the same shape for any H, W >= 1; its output is not clamped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from jointiq.errors import ConfigError
from jointiq.parts import Registry, Settings, import_all


@dataclass(frozen=True)
class EnhancerSettings(Settings, group="enhancer"):
    """Settings of an enhancer."""


ENHANCERS: Registry[nn.Module] = Registry("enhancer.name")
register_enhancer = ENHANCERS.register


def build_enhancer(config: Mapping[str, Any] | None) -> nn.Module | None:
    """Build the enhancer that ``config`` describes; ``None`` builds none.

    Only registered classes can be built, whatever the configuration says: it may come from a received model file.

    Args:
        config: ``{"name": "grdn", **its settings}``.

    Raises:
        ConfigError: an unknown name, an unknown or missing setting, or a value that is not allowed.
    """
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise ConfigError("enhancer", config, 'null or a mapping such as {"name": "grdn"}')
    name = config.get("name")
    enhancer, settings = ENHANCERS.get(name)
    return enhancer(settings.of({key: value for key, value in config.items() if key != "name"}, str(name)))


import_all(__name__, __path__)
