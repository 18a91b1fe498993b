"""Parts that a configuration names (models, entropy models, enhancers): their registries, and what they can be set to.

A part has a frozen dataclass of settings, whose fields say what they allow::

    @dataclass(frozen=True)
    class VDSRSettings(Settings, group="enhancer"):
        layers: int = at_least(2)
        kernels: int = at_least(1, default=64)
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Generic, Self, TypeVar

from jointiq.errors import ConfigError, check_whole, nearest

#: Refuses a value: (key, value) -> raises ConfigError.
Check = Callable[[str, Any], None]

_Part = TypeVar("_Part")
_Class = TypeVar("_Class", bound=type)


def at_least(smallest: int, default: Any = MISSING, **marks: bool) -> Any:
    """Declare a field for a whole number of at least ``smallest``; ``marks`` as in :func:`checked`."""
    return between(smallest, math.inf, default, **marks)


def between(smallest: int, largest: float, default: Any = MISSING, **marks: bool) -> Any:
    """Declare a field for a whole number from ``smallest`` to ``largest``; ``marks`` as in :func:`checked`."""
    return checked(lambda key, value: check_whole(key, value, smallest, largest), default, **marks)


def one_of(choices: Iterable[Any], default: Any = MISSING, **marks: bool) -> Any:
    """Declare a field for one of ``choices``; ``marks`` as in :func:`checked`."""
    allowed = tuple(choices)

    def check(key: str, value: Any) -> None:
        # 1 == True, but neither stands for the other here.
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            raise ConfigError(key, value, allowed)

    return checked(check, default, **marks)


def flag(default: Any = MISSING, **marks: bool) -> Any:
    """Declare a field for true or false; ``marks`` as in :func:`checked`."""
    return one_of((True, False), default, **marks)


def checked(check: Check, default: Any = MISSING, **marks: bool) -> Any:
    """Declare a field whose values ``check`` looks at.

    Args:
        check: raises ConfigError for a value that is not allowed.
        default: of the field; without one a value has to be given.
        marks: ``training``: a trained model works the same, so its configuration leaves the field out. ``shapeless``:
            the field changes how a model works, but no weight's shape. ``staged``: it differs between the stages of one
            training. ``added_later``: left out of the stored configuration at its default, so that older models keep
            their fingerprint.
    """
    return field(default=default, metadata={"check": check, **marks})


@dataclass(frozen=True)
class Settings:
    """What a part can be set to; every value is checked when it is made.

    Subclasses name their ``group``, by which the keys begin in error messages.

    Raises:
        ConfigError: a value that is not allowed.
    """

    group: ClassVar[str] = "model"

    def __init_subclass__(cls, group: str | None = None) -> None:
        super().__init_subclass__()
        cls.group = group or cls.group

    def __post_init__(self) -> None:
        for each in fields(self):
            each.metadata["check"](f"{self.group}.{each.name}", getattr(self, each.name))

    @classmethod
    def of(cls, values: Mapping[str, Any], part: str) -> Self:
        """Make the settings of ``part`` (its name, for messages) from values by key.

        Raises:
            ConfigError: an unknown or missing key, or a value that is not allowed.
        """
        known = {each.name: each for each in fields(cls)}
        for key, value in values.items():
            if key not in known:
                allowed = f"the keys of {part}: {', '.join(known) or 'none'}{nearest(key, known)}"
                raise ConfigError(f"{cls.group}.{key}", value, allowed)
        for key, each in known.items():
            if each.default is MISSING and key not in values:
                raise ConfigError(f"{cls.group}.{key}", None, f"{part} needs a value for it")
        return cls(**values)

    @classmethod
    def names(cls, mark: str | None = None) -> list[str]:
        """Return the names of all fields, or of those with a mark (see :func:`checked`)."""
        return [each.name for each in fields(cls) if mark is None or each.metadata.get(mark)]

    def as_dict(self) -> dict[str, Any]:
        """Return what a trained model keeps, as JSON can hold it: all but the fields of the training."""
        absent = {each.name for each in fields(self) if each.metadata.get("training") or self._is_older(each)}
        return {name: getattr(self, name) for name in self.names() if name not in absent}

    def _is_older(self, each: Field[Any]) -> bool:
        return bool(each.metadata.get("added_later")) and getattr(self, each.name) == each.default


class Registry(Generic[_Part]):
    """Parts of one kind by the names that a configuration may give; nothing else can be built by one.

    Args:
        key: of the configuration, such as ``enhancer.name``.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._parts: dict[str, tuple[type[_Part], type[Settings]]] = {}

    def register(self, name: str, settings: type[Settings]) -> Callable[[_Class], _Class]:
        """Class decorator: make a part known under ``name``, with the dataclass of what it can be set to.

        Raises:
            ValueError: another class has this name already.
        """

        def register(cls: _Class) -> _Class:
            if name in self._parts:
                one = self._parts[name][0]
                raise ValueError(f"two parts are named {name!r}: {one.__qualname__}, {cls.__qualname__}")
            self._parts[name] = (cls, settings)
            return cls

        return register

    def names(self) -> list[str]:
        """Return the names that the key may take."""
        return sorted(self._parts)

    def get(self, name: Any) -> tuple[type[_Part], type[Settings]]:
        """Return the class called ``name`` and that of its settings.

        Raises:
            ConfigError: no part has that name.
        """
        if not isinstance(name, str) or name not in self._parts:
            raise ConfigError(self.key, name, self.names())
        return self._parts[name]


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that the parts in it are registered."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
