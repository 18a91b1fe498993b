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
from torch import Tensor, nn

from src.bitstream import tables
from src.entropy_models.exact import ExactEntropyModel
from src.errors import ConfigError, UserError
from src.files import atomic_path
from src.layers.context import ABOVE, KNOWN_ENTRIES, WINDOW
from src.layers.fixed_point import ONE
from src.layers.global_context import CONTEXT_WEIGHT_BITS
from src.models import build_model
from src.models.fingerprint import fingerprint
from src.models.jointiq import JointIQNet

SUFFIX = ".safetensors"
FORMAT = "jiq-model"
VERSION = 1
_FLOAT_PARTS = ("g_a.", "g_s.", "h_a.", "enhancer.")
_EXACT = "exact."
_TABLES = "tables."


def write_export(model: JointIQNet, path: str | Path, half: bool = False, **notes: str) -> bytes:
    """Write ``model`` to ``path`` and return its fingerprint.

    Args:
        half: store the float weights in 16 bits. The model that is read back has these rounded weights, and so another
            fingerprint than ``model``.
        notes: more metadata, such as ``name``, ``lmbda`` or ``training_data``.
    """
    floats = {name: value for name, value in model.state_dict().items() if name.startswith(_FLOAT_PARTS)}
    stored = {name: value.half() if half else value.float() for name, value in floats.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in stored.items()}
    tensors |= {_EXACT + name: value.cpu().contiguous() for name, value in model.exact.tensors().items()}
    tensors |= {_TABLES + name: table.clone() for name, table in _tables().items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(model.config), **notes}
    metadata["checksum"] = _checksum(tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
    return fingerprint(read_export(Path(path)))


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


def read_export(path: Path) -> JointIQNet:
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
        state = model.state_dict()
        state |= {name: tensors[name].float() for name in state if name.startswith(_FLOAT_PARTS)}
        model.load_state_dict(state)
        model.use_exact(ExactEntropyModel(model.config, exact))
        restore_float_twin(model, exact)
    except (KeyError, ValueError, RuntimeError, TypeError, ConfigError) as error:
        raise UserError(f"{path}: the model in it is damaged or incomplete ({error})") from error
    return model


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


@torch.no_grad()
def restore_float_twin(model: JointIQNet, exact: dict[str, Tensor]) -> None:
    """Set the float weights of the entropy model to what its integers stand for."""

    def floats(name: str) -> tuple[Tensor, Tensor]:
        shift = exact[f"{name}.shift"].int()
        scale = torch.ldexp(torch.ones(shift.shape, dtype=torch.float64), -shift)
        return exact[f"{name}.weight"] * scale[:, None], exact[f"{name}.bias"] * scale / ONE

    def fill(layer: nn.Module, name: str) -> None:
        weight, bias = floats(name)
        target = layer.weight
        assert isinstance(target, Tensor) and isinstance(layer.bias, Tensor)
        if isinstance(layer, nn.ConvTranspose2d):
            target = target.transpose(0, 1)
        target.copy_(weight.view(target.shape))
        layer.bias.copy_(bias)

    for index, layer in enumerate(model.h_s.deconvs):
        fill(layer, f"h_s.deconv{index}")
    fill(model.h_s.conv, "h_s.conv")

    estimator, M = model.estimator, model.config["M"]
    weight, bias = floats("estimator.window")
    hyper, known = weight.split([WINDOW * WINDOW * M, KNOWN_ENTRIES * M], 1)
    estimator.from_hyper.weight.copy_(hyper.view(-1, WINDOW, WINDOW, M).permute(0, 3, 1, 2))
    assert estimator.from_hyper.bias is not None
    estimator.from_hyper.bias.copy_(bias)
    whole = torch.zeros(len(known), WINDOW * WINDOW, M, dtype=known.dtype)
    whole[:, :KNOWN_ENTRIES] = known.view(-1, KNOWN_ENTRIES, M)
    estimator.from_known.weight.copy_(whole.view(-1, ABOVE + 1, WINDOW, M).permute(0, 3, 1, 2))
    fill(estimator.hidden, "estimator.hidden")
    fill(estimator.preliminary, "estimator.preliminary")
    if estimator.mprm is not None:
        for index, (reduce, expand) in enumerate(zip(estimator.mprm.reduce, estimator.mprm.expand, strict=True)):
            fill(reduce, f"estimator.reduce{index}")
            fill(expand, f"estimator.expand{index}")

    model.z_prior.log_sigma.copy_(exact["z_prior.log_sigma"] / ONE)
    if model.global_context is not None:
        fill(model.global_context.transform, "global_context.transform")
        weights = exact["global_context.weights"].double().clamp(min=1) / (1 << CONTEXT_WEIGHT_BITS)
        model.global_context.psi.copy_(weights.log().view_as(model.global_context.psi))
