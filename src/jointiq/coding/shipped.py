"""The trained models that come with the project: the folder ``weights``, which ``python -m tools.ship`` makes.

Each is a model of all rates. ``weights/index.json`` lists them as ``{"format", "version", "models": [...]}``, the
default one first; of each this module reads ``name``, ``file``, ``sha256`` and ``fingerprint``, and leaves what else is
said of it to its readers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jointiq.bitstream.container import Container
from jointiq.configs import WEIGHTS
from jointiq.errors import BitstreamError, ConfigError, ModelError

if TYPE_CHECKING:
    import torch

    from jointiq.models.base import LearnedCodec

INDEX = "index.json"
FORMAT = "jiq-models"
VERSION = 2


@dataclass(frozen=True)
class ShippedModel:
    """A model of the index.

    Attributes:
        name: for people, such as ``jointiq-mse``.
        path: the model file, an export.
        sha256: of that file, as hexadecimal digits.
        fingerprint: the model's identity (:mod:`jointiq.coding.fingerprint`), 32 bytes.
        facts: all that the index says of it.
    """

    name: str
    path: Path
    sha256: str
    fingerprint: bytes
    facts: Mapping[str, Any] = field(repr=False)


def shipped_models() -> tuple[ShippedModel, ...]:
    """Return the models of the index, the default first; none where there is no index.

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
        return tuple(_entry(entry) for entry in document["models"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is damaged; {_restore(index)}") from error


def of_name(name: str | None = None) -> ShippedModel:
    """Return the shipped model of a name; None: the default.

    Raises:
        ModelError: no models are shipped, or the index cannot be read.
        ConfigError: there is no such model.
    """
    models = shipped_models()
    if not models:
        raise ModelError(f"{none_shipped()}; name a model with --checkpoint")
    found = models[0] if name is None else find(name)
    if found is None:
        raise ConfigError("model", name, [model.name for model in models])
    return found


def of_fingerprint(start: bytes) -> ShippedModel | None:
    """Return the shipped model whose fingerprint starts with these bytes (a ``.jiq`` file holds four), or None.

    Raises:
        ModelError: the index cannot be read.
    """
    return next((model for model in shipped_models() if model.fingerprint.startswith(start)), None)


def find(name: str | Path) -> ShippedModel | None:
    """Return the shipped model of a name, or None.

    Raises:
        ModelError: the index cannot be read.
    """
    return next((model for model in shipped_models() if model.name == str(name)), None)


def path_of(model: str | Path) -> Path:
    """Return the file of the shipped model of that name; else the path as it is.

    Raises:
        ModelError: the index cannot be read.
    """
    found = find(model)
    return Path(model) if found is None else found.path


def load_shipped(model: ShippedModel, device: torch.device | str = "cpu") -> LearnedCodec:
    """Load a shipped model, in evaluation mode on ``device``.

    Both the file's SHA-256 and the model's fingerprint are compared with the index: one that names another model would
    send files to the wrong decoder. The checksum inside the file adds nothing and is skipped.

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
    from jointiq.coding.export import read_export
    from jointiq.coding.fingerprint import fingerprint

    network = read_export(model.path, checked=True).to(device).eval()
    if fingerprint(network) != model.fingerprint:
        raise ModelError(f"{model.path} holds another model than {INDEX} says; {_restore(WEIGHTS)}")
    return network


class Decoders:
    """The models that decode files: the given one, or else the shipped one that each file names, loaded once."""

    def __init__(self, given: LearnedCodec | None = None, device: torch.device | str = "cpu") -> None:
        self._given = given
        self._device = device
        self._loaded: dict[bytes, LearnedCodec] = {}

    def of(self, data: bytes) -> LearnedCodec:
        """Return the model for the bytes of a ``.jiq`` file.

        Raises:
            BitstreamError: the file is damaged, or was written by a model that is not shipped.
            ModelError: the shipped models cannot be used.
        """
        if self._given is not None:
            return self._given
        start = Container.unpack(data).fingerprint
        if start not in self._loaded:
            self._loaded[start] = load_shipped(_named(start), self._device)
        return self._loaded[start]


def _named(start: bytes) -> ShippedModel:
    found = of_fingerprint(start)
    if found is not None:
        return found
    names = ", ".join(f"{model.name} {model.fingerprint[: len(start)].hex()}" for model in shipped_models())
    among = f"none of the shipped ones ({names})" if names else f"not at hand: {none_shipped()}"
    name_it = "name its model: --checkpoint MODEL, in Python decode(data, model)"
    raise BitstreamError(f"the file was written by the model {start.hex()}, {among}; {name_it}")


def none_shipped() -> str:
    """Return the message that this checkout has no trained models."""
    return f"no trained models are shipped in this checkout ({WEIGHTS / INDEX} is missing)"


def _entry(entry: Mapping[str, Any]) -> ShippedModel:
    return ShippedModel(
        name=str(entry["name"]),
        path=WEIGHTS / Path(entry["file"]).name,
        sha256=str(entry["sha256"]),
        fingerprint=bytes.fromhex(entry["fingerprint"]),
        facts=entry,
    )


def _restore(path: Path) -> str:
    return f"fetch it again: git checkout -- {path}"
