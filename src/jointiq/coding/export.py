"""One self-contained file for a trained model: safetensors, no pickle (``python -m src.export``).

It holds the float weights of the transforms and of the enhancer, the integers of the entropy model, the fixed tables of
the format, and as metadata the configuration. The entropy model is stored once, as integers; its float weights, which
only estimate rates, are derived from them when the file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from jointiq.bitstream import tables
from jointiq.bitstream.scan import Quarters, get_scan
from jointiq.coding.fingerprint import fingerprint
from jointiq.entropy_models.factorized import TABLE_BITS
from jointiq.errors import ConfigError, UserError
from jointiq.files import write_bytes
from jointiq.layers.block_context import weight_count
from jointiq.layers.causal_sums import tap_is_known
from jointiq.layers.global_context import CONTEXT_WEIGHT_BITS, VALUE_FRACTION_BITS
from jointiq.layers.integer_layers import FRACTION_BITS, MAX_SHIFT, WEIGHT_BITS
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec
from jointiq.models.objective import Objective

FORMAT = "jiq-model"
VERSION = 1
_INTEGERS = "exact."
_TABLES = "tables."


def write_export(model: LearnedCodec, path: str | Path, half: bool = False, **notes: str) -> bytes:
    """Write ``model`` to ``path`` and return its fingerprint.

    Args:
        half: store the kernels of float convolutions in 16 bits. The model that is read back has these rounded
            weights, and so another fingerprint than ``model``.
        notes: more metadata, such as ``name``, ``lmbda`` or ``training_data``.
    """
    model.update()
    floats = {name: value for name, value in model.weights().items() if model.is_float(name)}
    stored = {name: _stored(value, half) for name, value in floats.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in stored.items()}
    tensors |= {_INTEGERS + name: value.cpu().contiguous() for name, value in model.integer_tensors().items()}
    tensors |= {_TABLES + name: table.clone() for name, table in _tables().items()}
    objective = {} if model.objective is None else model.objective.texts()
    metadata = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(model.config), **objective, **notes}
    metadata["checksum"] = _checksum(tensors)
    write_bytes(path, _sorted(save(tensors, metadata)))
    return fingerprint(read_export(Path(path)))


def _sorted(data: bytes) -> bytes:
    """Sort a file's metadata by name, so that the same model gives the same file, with the same SHA-256.

    safetensors writes them in an order that changes from call to call.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(size) + data[8 + size :]


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file, which is mapped into memory; its library takes no name that is not UTF-8."""
    with Path(path).open("rb") as stream, safe_open(f"/dev/fd/{stream.fileno()}", "pt") as file:
        yield file


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of an export.

    Raises:
        UserError: not an export.
    """
    try:
        with _opened(path) as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise UserError(f"{path} is not a model written by src.export") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise UserError(f"{path} is not a model written by src.export (format {FORMAT}, version {VERSION})")
    return metadata


def read_export(path: Path, checked: bool = False) -> LearnedCodec:
    """Return the model in an export.

    Args:
        checked: the file is known to be whole, so that its checksum need not be verified.

    Raises:
        UserError: not an export, damaged, or made with other format tables.
    """
    metadata = read_metadata(path)
    try:
        with _opened(path) as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not checked and _checksum(tensors) != metadata["checksum"]:
            raise UserError(f"{path} is damaged: its weights do not match their checksum")
        model = build_model(json.loads(metadata["config"]))
        for name, table in _tables().items():
            if not torch.equal(tensors[_TABLES + name], table):
                raise UserError(f"{path}: its table {name} is not that of the format")
        integers = {
            name.removeprefix(_INTEGERS): value for name, value in tensors.items() if name.startswith(_INTEGERS)
        }
        state = model.weights()
        known = integers if model.entropy_model is not None and model.entropy_model.IN_FORMAT else {}
        for name, value in known.items():
            if not _is_allowed(name, value, integers, model):
                raise UserError(f"{path}: its integers {name} are outside of the format's types and ranges")
        floats = {name: tensors[name] for name in state if model.is_float(name)}
        state |= {name: value.float() if value.is_floating_point() else value for name, value in floats.items()}
        model.load_state_dict(state)
        if integers:
            model.restore_integers(integers)
        model.objective = Objective.read(metadata)
    except (KeyError, ValueError, RuntimeError, TypeError, ConfigError) as error:
        raise UserError(f"{path}: the model in it is damaged or incomplete ({error})") from error
    return model


def _is_allowed(name: str, value: Tensor, integers: Mapping[str, Tensor], model: LearnedCodec) -> bool:
    """Tell whether integers of the entropy model have the types, shapes and ranges of docs/format.md.

    That sums stay exact is checked when a layer is made of them; that a layer fits the networks around it, when the
    float weights are set.
    """
    stem, _, part = name.rpartition(".")
    if part == "log_sigma":
        return value.dtype == torch.int32 and value.shape == model.weights()[name].shape
    if part == "cdf":
        rising = value.dtype == torch.int32 and value.dim() == 2 and bool((value.diff(dim=1) >= 0).all())
        return rising and len(value) == len(model.weights()["prior.matrices.0"]) and _within(value, 0, 1 << TABLE_BITS)
    if name == "global_context.weights":
        scan, K = get_scan(model.config["scan"]), model.config["K"]
        if isinstance(scan, Quarters):
            known = torch.ones(weight_count(K), dtype=torch.bool)
        else:
            known = tap_is_known(scan, K).flatten()
        return (
            value.dtype == torch.int32
            and value.dim() == 2
            and value.shape[1:] == known.shape
            and _within(value[:, known], 1, 1 << CONTEXT_WEIGHT_BITS)
            and _within(value[:, ~known], 0, 0)
        )
    if part == "weight":
        return value.dtype == torch.int16 and value.dim() == 2 and _within(value, -(1 << WEIGHT_BITS), 1 << WEIGHT_BITS)
    outputs = integers[f"{stem}.weight"].shape[:1]
    if part == "bias":
        return value.dtype == torch.int64 and value.shape == outputs
    if part == "shift":
        return value.dtype == torch.uint8 and value.shape == outputs and _within(value, 0, MAX_SHIFT)
    bits = VALUE_FRACTION_BITS if stem == "global_context.transform" else FRACTION_BITS
    return part == "fraction_bits" and value.dtype == torch.uint8 and value.tolist() == [bits]


def _within(value: Tensor, smallest: int, largest: int) -> bool:
    return not value.numel() or smallest <= int(value.min()) and int(value.max()) <= largest


def _stored(value: Tensor, half: bool) -> Tensor:
    """Return floats in 16 or 32 bits, and integers (the tables of CompressAI's coder) as they are.

    Only kernels of convolutions take 16 bits: rounded biases and gains lose the most and save the least.
    """
    if not value.is_floating_point():
        return value
    return value.half() if half and value.dim() == 4 else value.float()


def _checksum(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 over names and bytes of all tensors, in the order of their names."""
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
