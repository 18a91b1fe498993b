"""The data set ``folder``: your own images, one or more folders for each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jointiq.data.images import list_images
from jointiq.errors import ConfigError, DataError


def images(data: Mapping[str, Any], split: str) -> list[Path]:
    """Return the images of ``data.<split>_dir`` that match ``data.pattern``, folder after folder, no file twice.

    Raises:
        ConfigError: no folder is named.
        DataError: a folder is missing or empty.
    """
    key = f"{split}_dir"
    folders = data[key] if is_list(data[key]) else [data[key]]
    if not data[key]:
        allowed = f"a folder of images: data={data['name']} data.{key}=DIR, or several: data.{key}=[DIR1,DIR2]"
        raise ConfigError(f"data.{key}", data[key], allowed)
    try:
        paths = [path for folder in folders for path in list_images(str(folder), data["pattern"])]
    except DataError as error:
        raise DataError(f"data.{key}: {error}") from error
    return list(dict.fromkeys(paths))


def is_list(value: Any) -> bool:
    """Tell whether a setting names several folders."""
    return isinstance(value, Sequence) and not isinstance(value, str)
