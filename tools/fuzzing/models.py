"""Damaged models, which must be refused in one line when they are loaded, or decode exactly what they encode."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressai.models import FactorizedPrior
from safetensors.torch import load, save
from torch import Tensor

from jointiq.coding import EXPORT, PTH_TAR
from jointiq.coding.export import _checksum, write_export
from jointiq.coding.image_codec import decode_image, encode_image, same_latents
from jointiq.coding.load import load_model
from jointiq.errors import ModelError, UserError
from jointiq.interop.pth_tar import write_pth_tar
from tools.fuzzing.damage import damage_bytes, damage_values, wrong
from tools.fuzzing.networks import SMALL, busy_model
from tools.fuzzing.worker import Case

_CHECKPOINT = ".ckpt"
_TYPES = (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64, torch.bool)
#: Word in the error of a model whose latents are exact, but whose picture is not finite.
_NOT_FINITE = "finite"


class Models:
    """Exports, checkpoints and state dicts with damaged bytes, tensors or configurations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = np.random.default_rng(0).integers(0, 256, (40, 70, 3)).astype(np.uint8)
        self.files: dict[str, list[bytes]] = {}
        enhanced = {**SMALL, "enhancer": {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}}
        configs: list[dict[str, Any]] = [SMALL, {**SMALL, "scan": "quarters"}, enhanced]
        for number, config in enumerate(configs):
            model = busy_model(config)
            write_export(model, folder / f"a{EXPORT}", half=number == 2)
            write_pth_tar(model, folder / f"a{PTH_TAR}")
            state = {f"net.{name}": value for name, value in model.state_dict().items()}
            torch.save(
                {"model_config": model.config, "state_dict": state, "lmbda": 0.1, "global_step": 3},
                folder / f"a{_CHECKPOINT}",
            )
            for suffix in (EXPORT, PTH_TAR, _CHECKPOINT):
                self.files.setdefault(suffix, []).append((folder / f"a{suffix}").read_bytes())
        zoo = FactorizedPrior(4, 6)
        zoo.update()
        self.files[PTH_TAR].append(_saved(zoo.state_dict()))

    def case(self, rng: np.random.Generator) -> Case:
        suffix = list(self.files)[int(rng.integers(len(self.files)))]
        files = self.files[suffix]
        if not rng.integers(4):
            return Case(f"a{suffix}", damage_bytes(rng, files))
        data = files[int(rng.integers(len(files)))]
        return Case(f"a{suffix}", _other_export(rng, data) if suffix == EXPORT else _other_checkpoint(rng, data))

    def check(self, case: Case) -> None:
        path = self.folder / case.name
        path.write_bytes(case.data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a line of its own beside that of the error
            model = load_model(path)
        encoded = encode_image(model, self.image)
        try:
            decoded = decode_image(model, encoded.data)
        except ModelError as error:
            assert _NOT_FINITE in str(error), error
            raise
        except UserError as error:
            raise AssertionError(f"encoded, and then: {error}") from error
        assert same_latents(encoded, decoded), "other latents"


def target(folder: Path) -> Models:
    """Return the target of ``WHAT=models``."""
    return Models(folder)


def _saved(content: Any) -> bytes:
    written = io.BytesIO()
    torch.save(content, written)
    return written.getvalue()


def _other_export(rng: np.random.Generator, data: bytes) -> bytes:
    """Return an export with other tensors or metadata, mostly with the checksum that fits them."""
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    tensors = load(data)
    kind = int(rng.integers(4))
    if kind == 0:
        metadata["config"] = json.dumps(damage_values(rng, json.loads(metadata["config"])))
    elif kind == 1:
        name = sorted(metadata)[int(rng.integers(len(metadata)))]
        metadata[name] = str(wrong(rng)).encode(errors="replace").decode()
    else:
        _damage_tensors(rng, tensors, "exact." if kind == 2 else "")
    if rng.integers(8):
        metadata["checksum"] = _checksum(tensors)
    return save(tensors, metadata)


def _other_checkpoint(rng: np.random.Generator, data: bytes) -> bytes:
    """Return a checkpoint with other tensors, another configuration, or other things in their places."""
    content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    state: dict[str, Any] = content.get("state_dict", content)
    kind = int(rng.integers(4))
    if kind == 0 and "model_config" in content:
        content["model_config"] = damage_values(rng, content["model_config"])
    elif kind == 0 and "_extra_state" in state:
        text = json.dumps(damage_values(rng, json.loads(bytes(state["_extra_state"].tolist()))))
        state["_extra_state"] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    elif kind == 1:
        place = content if rng.integers(2) else state
        key = list(place)[int(rng.integers(len(place)))]
        place[key] = wrong(rng)
    else:
        _damage_tensors(rng, state, "")
    return _saved(dict(content))


def _damage_tensors(rng: np.random.Generator, tensors: dict[str, Tensor], prefix: str) -> None:
    """Give one to three tensors other values, types or shapes, or take them out."""
    for _ in range(int(rng.integers(1, 4))):
        names = sorted(name for name in tensors if name.startswith(prefix))
        if not names:
            return
        name = names[int(rng.integers(len(names)))]
        tensor = tensors.pop(name)
        kind = int(rng.integers(8))
        if kind == 0:
            continue
        if kind == 1:
            tensor = tensor.to(_TYPES[int(rng.integers(len(_TYPES)))])
        elif kind == 2:
            tensor = tensor[:-1] if tensor.dim() and len(tensor) > 1 else tensor[None]
        elif kind == 3:
            tensor = tensor.flatten()
        else:
            tensor = _with_other_values(rng, tensor)
        tensors[name] = tensor.contiguous()


def _with_other_values(rng: np.random.Generator, tensor: Tensor) -> Tensor:
    """Return a tensor with a few or all of its values replaced by extreme ones."""
    flat = tensor.flatten().clone()
    count = len(flat) if not rng.integers(3) else min(len(flat), 3)
    places = torch.from_numpy(rng.permutation(len(flat))[:count])
    if tensor.is_floating_point():
        values: tuple[float, ...] = (0.0, -1.0, 1e4, -1e4, 1e30, 1e-30, float("nan"), float("inf"))
    else:
        limits = torch.iinfo(tensor.dtype) if tensor.dtype != torch.bool else None
        values = (0, 1) if limits is None else (0, 1, limits.min, limits.max, limits.max // 2)
    flat[places] = torch.tensor(values[int(rng.integers(len(values)))], dtype=tensor.dtype)
    return flat.view(tensor.shape)
