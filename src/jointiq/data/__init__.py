"""Images: files, data sets (sample, folders, prepared patches), and the data module that trains on them.

To add a data set: put a file NAME.py into this folder with a function ``images(data, split)``, its image files of a
split, and a YAML file with ``name: NAME`` and the settings that it reads into ``conf/data``. A data set whose training
images are not files also has a function ``build(data, seed, **settings)``, which returns the data module.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jointiq.configs import CONFIGS
from jointiq.errors import ConfigError

if TYPE_CHECKING:
    from jointiq.data.datamodule import ImageData

__all__ = ["LATENT", "build_data", "data_set_names", "split_images", "test_images"]

#: Settings that all data sets share (``conf/data/_patches.yaml``).
_SHARED = ("batch_size", "crop", "min_zoom", "flips", "num_workers", "preload_mb")

#: Pixels of a side that one position of y covers.
LATENT = 16


def data_set_names() -> list[str]:
    """Return the names that ``data.name`` may take: those with a file in this folder and one in ``conf/data``."""
    configs = {path.stem for path in (CONFIGS / "data").glob("*.yaml")}
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name in configs)


def split_images(data: Mapping[str, Any], split: str) -> list[Path]:
    """Return the image files of a split (``train``, ``val`` or ``test``) of the data set that ``data`` describes.

    Args:
        data: ``name`` and what the data set reads of its config.

    Raises:
        ConfigError: unknown data set, or a value that it refuses.
        DataError: a folder is missing or empty.
    """
    images: list[Path] = _data_set(data).images(data, split)
    return images


def test_images(data: Mapping[str, Any]) -> list[Path]:
    """Return the image files of the test split (see :func:`split_images`)."""
    return split_images(data, "test")


# The name is the public one; pytest is not to take it for a test where it is imported.
test_images.__test__ = False  # type: ignore[attr-defined]


def build_data(data: Mapping[str, Any], seed: int) -> ImageData:
    """Return the data module of a ``data`` config; ``seed`` decides all patches.

    Raises:
        ConfigError, DataError: see :func:`split_images`.
    """
    from jointiq.data.datamodule import ImageData

    settings = {key: data[key] for key in _SHARED}
    build = getattr(_data_set(data), "build", None)
    if build is not None:
        module: ImageData = build(data, seed=seed, **settings)
        return module
    return ImageData(split_images(data, "train"), split_images(data, "val"), seed=seed, **settings)


def _data_set(data: Mapping[str, Any]) -> ModuleType:
    if data["name"] not in data_set_names():
        raise ConfigError("data.name", data["name"], data_set_names())
    return importlib.import_module(f"{__name__}.{data['name']}")
