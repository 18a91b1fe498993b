"""Hydra reads all files of conf/ anew for every configuration that it composes, and the tests compose hundreds."""

from __future__ import annotations

import copy
from collections.abc import Callable

from hydra._internal.config_repository import ConfigRepository
from hydra.plugins.config_source import ConfigResult


def reading_once() -> Callable[[ConfigRepository, str], ConfigResult | None]:
    """What reads a file for Hydra in place of ``ConfigRepository.load_config``: the same, but each file once."""
    load = ConfigRepository.load_config
    known: dict[tuple[str, ...], ConfigResult] = {}

    def load_once(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
        key = (config_path, *(source.path for source in repository.sources))
        if key not in known:
            if (found := load(repository, config_path)) is None:
                return None
            known[key] = found
        return copy.deepcopy(known[key])

    return load_once
