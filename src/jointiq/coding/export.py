"""One self-contained file for a trained model: safetensors, no pickle (``python -m src.export``).

It holds the float weights of the transforms and of the enhancer, the integers of the entropy model, the fixed tables of
the format, and as metadata the configuration. The entropy model is stored once, as integers; its float twin, which only
estimates rates, is read back from them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from jointiq.bitstream import tables
from jointiq.coding.fingerprint import fingerprint
from jointiq.errors import ConfigError, UserError
from jointiq.files import atomic_path
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec

FORMAT = "jiq-model"
VERSION = 1
_EXACT = "exact."
_TABLES = "tables."


def write_export(model: LearnedCodec, path: str | Path, half: bool = False, **notes: str) -> bytes:
    """Write ``model`` to ``path`` and return its fingerprint.

    Args:
        half: store the float weights in 16 bits. The model that is read back has these rounded weights, and so another
            fingerprint than ``model``.
        notes: more metadata, such as ``name``, ``lmbda`` or ``training_data``.
    """
    model.update()
    floats = {name: value for name, value in model.weights().items() if model.is_float(name)}
    stored = {name: _stored(value, half) for name, value in floats.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in stored.items()}
    tensors |= {_EXACT + name: value.cpu().contiguous() for name, value in model.exact_tensors().items()}
    tensors |= {_TABLES + name: table.clone() for name, table in _tables().items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(model.config), **notes}
    metadata["checksum"] = _checksum(tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
        _sort_metadata(temporary)
    return fingerprint(read_export(Path(path)))


def _sort_metadata(path: Path) -> None:
    """Give the file's metadata the order of their names: safetensors writes them in one that changes from call to call.

    So the same model is the same file, with the same SHA-256.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


def read_metadata(path: str | Path) -> dict[str, str]:
    """What an export says of itself.

    Raises:
        UserError: not an export.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a model written by src.export") from error
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise UserError(f"{path} is not a model written by src.export (format {FORMAT}, version {VERSION})")
    return metadata


def read_export(path: Path) -> LearnedCodec:
    """The model in an export.

    Raises:
        UserError: not an export, damaged, or made with other format tables.
    """
    metadata = read_metadata(path)
    try:
        with safe_open(path, "pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(tensors) != metadata["checksum"]:
            raise UserError(f"{path} is damaged: its weights do not match their checksum")
        model = build_model(json.loads(metadata["config"]))
        for name, table in _tables().items():
            if not torch.equal(tensors[_TABLES + name], table):
                raise UserError(f"{path}: its table {name} is not that of the format")
        exact = {name.removeprefix(_EXACT): value for name, value in tensors.items() if name.startswith(_EXACT)}
        state = model.weights()
        floats = {name: tensors[name] for name in state if model.is_float(name)}
        state |= {name: value.float() if value.is_floating_point() else value for name, value in floats.items()}
        model.load_state_dict(state)
        if exact:
            model.restore_exact(exact)
    except (KeyError, ValueError, RuntimeError, TypeError, ConfigError) as error:
        raise UserError(f"{path}: the model in it is damaged or incomplete ({error})") from error
    return model


def _stored(value: Tensor, half: bool) -> Tensor:
    """Floats in 16 or 32 bits; integers, such as the tables of CompressAI's coder, as they are."""
    if not value.is_floating_point():
        return value
    return value.half() if half else value.float()


def _checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _tables() -> dict[str, Tensor]:
    return {
        "normal_cdf": tables.normal_cdf().int(),
        "exp": tables.exp_table().int(),
        "inverse_sigma": tables.inverse_sigma().int(),
        "decision_probabilities": tables.decision_probabilities().int(),
    }
