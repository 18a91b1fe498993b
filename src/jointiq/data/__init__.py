"""Images: files, the embedded sample, folders, and the data module that trains on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jointiq.data.images import list_images
from jointiq.data.sample import sample_images
from jointiq.errors import ConfigError

if TYPE_CHECKING:
    from jointiq.data.datamodule import ImageData

__all__ = ["DATA_SETS", "LATENT", "build_data", "split_images", "test_images"]

#: Values of ``data.name``.
DATA_SETS = ("sample", "folder", "prepared")

#: Pixels that one position of y covers, a side.
LATENT = 16


def split_images(data: Mapping[str, Any], split: str) -> list[Path]:
    """Image files of a split (``train``, ``val`` or ``test``) of the data set that a ``data`` config describes.

    Only ``data.name`` is read and, where that is no ``sample``, ``data.<split>_dir`` (a folder, or a list of folders:
    one after the other, no file twice) and ``data.pattern``. The training patches of ``prepared`` are no image files:
    :func:`build_data` opens them.

    Raises:
        ConfigError: unknown data set, or a folder that is not given.
        DataError: a missing or empty folder; of several, the first that is.
    """
    if data["name"] == "sample":
        return sample_images(split)
    if data["name"] in ("folder", "prepared"):
        key = f"{split}_dir"
        if not data[key]:
            allowed = f"a folder of images: data={data['name']} data.{key}=DIR, or several: data.{key}=[DIR1,DIR2]"
            raise ConfigError(f"data.{key}", data[key], allowed)
        folders = data[key] if _is_list(data[key]) else [data[key]]
        paths = (path for folder in folders for path in list_images(str(folder), data["pattern"]))
        return list(dict.fromkeys(paths))
    raise ConfigError("data.name", data["name"], DATA_SETS)


def test_images(data: Mapping[str, Any]) -> list[Path]:
    """Image files of the test split (see :func:`split_images`)."""
    return split_images(data, "test")


# The name is the public one; pytest is not to take it for a test where it is imported.
test_images.__test__ = False  # type: ignore[attr-defined]


def build_data(data: Mapping[str, Any], seed: int) -> ImageData:
    """The data module of a ``data`` config; ``seed`` decides all patches.

    Raises:
        ConfigError, DataError: see :func:`split_images`.
    """
    from jointiq.data.datamodule import ImageData
    from jointiq.data.prepared import PreparedData

    keys = ("batch_size", "crop", "min_zoom", "flips", "num_workers", "preload_mb")
    settings = {key: data[key] for key in keys}
    if data["name"] == "prepared":
        if not data["train_dir"] or _is_list(data["train_dir"]):
            made = "one folder, the --output of python -m src.prepare: data=prepared data.train_dir=DIR"
            raise ConfigError("data.train_dir", data["train_dir"], made)
        return PreparedData(Path(data["train_dir"]), split_images(data, "val"), seed=seed, **settings)
    return ImageData(split_images(data, "train"), split_images(data, "val"), seed=seed, **settings)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
