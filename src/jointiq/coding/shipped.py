"""The trained models that come with the repository: the folder ``weights``, which ``python -m tools.ship`` makes.

``weights/index.json`` lists them as ``{"format", "version", "models": [...]}``; of each model this module reads
``quality``, ``name``, ``file``, ``sha256`` and ``fingerprint``, and leaves what else is said of it to its readers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jointiq.configs import WEIGHTS
from jointiq.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

    from jointiq.models.base import LearnedCodec

INDEX = "index.json"
FORMAT = "jiq-models"
VERSION = 1
#: What ``src.codec`` uses where neither a model nor a quality is named.
DEFAULT_QUALITY = 3


@dataclass(frozen=True)
class ShippedModel:
    """A model of the index.

    Attributes:
        quality: 1 for the smallest files, rising with them.
        name: for people, such as ``q1``.
        path: the model file, an export.
        sha256: of that file, as hexadecimal digits.
        fingerprint: the model's identity (:mod:`jointiq.coding.fingerprint`), 32 bytes.
        facts: all that the index says of it.
    """

    quality: int
    name: str
    path: Path
    sha256: str
    fingerprint: bytes
    facts: Mapping[str, Any] = field(repr=False)


def shipped_models() -> tuple[ShippedModel, ...]:
    """The models of the index by rising quality; none where there is no index.

    Raises:
        ModelError: the index cannot be read.
    """
    index = WEIGHTS / INDEX
    if not index.is_file():
        return ()
    try:
        document = json.loads(index.read_text(encoding="utf-8"))
        if (document["format"], document["version"]) != (FORMAT, VERSION):
            raise ValueError("another format")
        models = [_entry(entry) for entry in document["models"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is damaged; {_restore(index)}") from error
    return tuple(sorted(models, key=lambda model: model.quality))


def of_quality(quality: int | None = None) -> ShippedModel:
    """The shipped model of a quality; None: of :data:`DEFAULT_QUALITY`.

    Raises:
        ModelError: no models are shipped, or the index cannot be read.
        ConfigError: there is no such quality.
    """
    models = shipped_models()
    if not models:
        raise ModelError(f"{none_shipped()}; name a model with --checkpoint")
    wanted = DEFAULT_QUALITY if quality is None else quality
    for model in models:
        if model.quality == wanted:
            return model
    raise ConfigError("--quality", wanted, [model.quality for model in models])


def of_fingerprint(start: bytes) -> ShippedModel | None:
    """The shipped model whose fingerprint starts with these bytes (a ``.jiq`` file holds four); None if none does.

    Raises:
        ModelError: the index cannot be read.
    """
    return next((model for model in shipped_models() if model.fingerprint.startswith(start)), None)


def load_shipped(model: ShippedModel, device: torch.device | str = "cpu") -> LearnedCodec:
    """The network of a shipped model, in evaluation mode on ``device``.

    Raises:
        ModelError: its file is missing, or is not the one of the index.
    """
    try:
        found = hashlib.sha256(model.path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{model.path}: {error.strerror or error}; {_restore(model.path)}") from error
    if found != model.sha256:
        raise ModelError(f"{model.path} is damaged: its SHA-256 is not that of {INDEX}; {_restore(model.path)}")
    # Imported late: the index is read without PyTorch.
    from jointiq.coding.fingerprint import fingerprint
    from jointiq.coding.load import load_model

    network = load_model(model.path, device)
    if fingerprint(network) != model.fingerprint:
        raise ModelError(f"{model.path} holds another model than {INDEX} says; {_restore(WEIGHTS)}")
    return network


def none_shipped() -> str:
    """The message that this checkout has no trained models."""
    return f"no trained models are shipped in this checkout ({WEIGHTS / INDEX} is missing)"


def _entry(entry: Mapping[str, Any]) -> ShippedModel:
    return ShippedModel(
        quality=int(entry["quality"]),
        name=str(entry["name"]),
        path=WEIGHTS / Path(entry["file"]).name,
        sha256=str(entry["sha256"]),
        fingerprint=bytes.fromhex(entry["fingerprint"]),
        facts=entry,
    )


def _restore(path: Path) -> str:
    return f"fetch it again: git checkout -- {path}"
