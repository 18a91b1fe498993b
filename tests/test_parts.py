"""Settings of parts: what a field allows is refused by name, whatever the part."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from jointiq.errors import ConfigError
from jointiq.parts import Registry, Settings, at_least, between, flag, one_of


@dataclass(frozen=True)
class Example(Settings, group="example"):
    count: int = at_least(2)
    reach: int = between(1, 4, default=3, shapeless=True)
    order: str = one_of(("raster", "wavefront"), default="raster", staged=True)
    on: bool = flag(default=True, training=True)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("count", 1, "a whole number from 2 up"),
        ("count", 2.0, "a whole number from 2 up"),
        ("count", True, "a whole number from 2 up"),
        ("count", "3", "a whole number from 2 up"),
        ("reach", 5, "a whole number from 1 to 4"),
        ("order", "spiral", "one of raster, wavefront"),
        ("order", ["raster"], "one of raster, wavefront"),
        ("on", 1, "one of True, False"),
        ("on", None, "one of True, False"),
        ("width", 3, "the keys of it: count, reach, order, on"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_key(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"^example.{key}=.* is not allowed; allowed: {allowed}"):
        Example.of({"count": 3, key: value}, "it")


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ConfigError, match="example.count=None"):
        Example.of({}, "it")


def test_settings_are_frozen_and_a_trained_model_keeps_all_but_those_of_the_training() -> None:
    settings = Example.of({"count": 3, "on": False}, "it")
    assert settings.as_dict() == {"count": 3, "reach": 3, "order": "raster"} and settings.on is False
    assert (Example.names("shapeless"), Example.names("staged")) == (["reach"], ["order"])
    with pytest.raises(FrozenInstanceError):
        settings.count = 4  # type: ignore[misc]


def test_a_registry_knows_what_was_registered_and_nothing_else() -> None:
    registry: Registry[object] = Registry("example.name")

    @registry.register("it", Example)
    class It:
        pass

    assert registry.get("it") == (It, Example) and registry.names() == ["it"]
    for name in ("os", None, 3, ["it"]):
        with pytest.raises(ConfigError, match="example.name=.*one of it"):
            registry.get(name)
    with pytest.raises(ValueError, match="two parts are named 'it'"):
        registry.register("it", Example)(It)
