"""The data set ``sample``: the photographs inside the scikit-image and scikit-learn packages; nothing is downloaded.

The two views of the motorcycle are nearly the same, so both are for training.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jointiq.data.images import read_image
from jointiq.errors import DataError

_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}

SPLITS: dict[str, tuple[str, ...]] = {
    "train": (
        "skimage/astronaut.png",
        "skimage/hubble_deep_field.jpg",
        "skimage/ihc.png",
        "skimage/motorcycle_left.png",
        "skimage/motorcycle_right.png",
        "skimage/retina.jpg",
        "sklearn/china.jpg",
    ),
    "val": ("skimage/rocket.jpg",),
    "test": ("skimage/chelsea.png", "skimage/coffee.png", "sklearn/flower.jpg"),
}


#: The test image that speed and memory are measured with.
PHOTOGRAPH = "coffee"


def images(data: Mapping[str, Any], split: str) -> list[Path]:
    """Return the photographs of a split; ``data`` has no settings for them."""
    return sample_images(split)


def sample_images(split: str) -> list[Path]:
    """Return the files of one split: ``train``, ``val`` or ``test``.

    Raises:
        DataError: a package lacks its photographs.
    """
    return [_locate(*name.split("/")) for name in SPLITS[split]]


def photograph(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return :data:`PHOTOGRAPH`, its middle cut to the aspect of ``size`` (height, width) and resized: (H, W, 3)."""
    path = next(path for path in sample_images("test") if path.stem == PHOTOGRAPH)
    image = Image.fromarray(read_image(path))
    height, width = size
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = (left, top, image.width - left, image.height - top)
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, box=box))


def _locate(package: str, name: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"data=sample needs the package {package}; allowed: pip install it, or data=folder")
    path = Path(spec.submodule_search_locations[0]) / _FOLDERS[package] / name
    if not path.is_file():
        raise DataError(f"{path}: this version of {package} lacks the photograph; allowed: data=folder")
    return path
