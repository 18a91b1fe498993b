"""Write training checkpoints atomically and read them safely: ``weights_only``, so that no code in them runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from jointiq.errors import UserError
from jointiq.files import atomic_path
from jointiq.models.objective import Objective
from jointiq.runs.resume import read_checkpoint

# The entries that loading the model needs, and those that say where it is from.
_FOR_USE = (
    "model_config",
    "state_dict",
    *(field.name for field in fields(Objective)),
    "name",
    "global_step",
    "epoch",
    "pytorch-lightning_version",
)
_MB = 1e6


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint format, written atomically and read with ``weights_only``.

    Args:
        read: checkpoints that have been read already, by path; each is handed out once and then forgotten.
    """

    def __init__(self, read: Mapping[str, dict[str, Any]] | None = None) -> None:
        super().__init__()
        self._read = dict(read or {})

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path`` atomically. If anything fails, the earlier file stays.

        Args:
            storage_options: ``keep``, how many of the newest checkpoints stay: what was at ``last.ckpt`` becomes
                ``last-1.ckpt``, and so on (default 1). ``weights``: save only what loading the model needs.

        Raises:
            UserError: the file cannot be written, or the disk has too little room for it.
        """
        path, options = Path(path), storage_options or {}
        if options.get("weights"):
            checkpoint = {key: checkpoint[key] for key in _FOR_USE if key in checkpoint}
        check_room(path, _size(checkpoint))
        with atomic_path(path) as temporary:
            # Through a Python file a full disk raises an OSError that says so.
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
            _rotate(path, options.get("keep", 1))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Return the contents of a checkpoint.

        Raises:
            UserError: no such file, or not a checkpoint.
        """
        return self._read.pop(str(path), None) or read_checkpoint(path)


def check_room(path: Path, size: float) -> None:
    """Check that the disk of ``path`` has ``size`` bytes left.

    Raises:
        UserError: it has not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise UserError(
            f"cannot write {path}: it takes {size / _MB:.1f} MB and the disk has {free / _MB:.1f} MB left; what was "
            "there stays; make room and type the same command, which goes on"
        )


def _size(value: Any) -> float:
    """Return the size in bytes of all tensors in nested containers, with an allowance for the rest."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_size, value.values())) + 200 * len(value)
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 0


def _rotate(path: Path, keep: int) -> None:
    """Rename ``NAME-1`` to ``NAME-2`` and so on, and link the file at ``path`` as ``NAME-1``; keep ``keep`` files."""

    def earlier(number: int) -> Path:
        return path.with_stem(f"{path.stem}-{number}") if number else path

    for number in range(keep - 1, 0, -1):
        if not earlier(number - 1).is_file():
            continue
        if number > 1:
            earlier(number - 1).replace(earlier(number))
            continue
        # A hard link, so that `path` itself exists at every moment.
        earlier(1).unlink(missing_ok=True)
        try:
            os.link(path, earlier(1))
        except OSError:
            shutil.copyfile(path, earlier(1))


def check_same_model(checkpoint: Mapping[str, Any], config: Mapping[str, Any], path: str) -> None:
    """Refuse to continue a checkpoint with another model.

    Raises:
        UserError: names the settings that differ.
    """
    saved = checkpoint["model_config"]
    keys = [key for key in {**saved, **config} if saved.get(key) != config.get(key)]
    if keys:
        differences = ", ".join(f"{key}={saved.get(key)} there, {config.get(key)} here" for key in keys)
        raise UserError(f"ckpt_path={path} holds another model: {differences}; allowed: a checkpoint of this model")


def check_same_averaging(checkpoint: Mapping[str, Any], averages: bool, path: str) -> None:
    """Refuse to continue a checkpoint with a mean of the weights (``optim.ema_decay``) without one, or the reverse.

    Raises:
        UserError: only one of the two has a mean.
    """
    averaged = "averaging_state" in checkpoint
    if averaged != averages:
        there, here = ("with" if on else "without" for on in (averaged, averages))
        allowed = "optim.ema_decay=.. as there" if averaged else "optim.ema_decay=null"
        raise UserError(
            f"ckpt_path={path} was trained {there} a mean of the weights, this is {here}; allowed: {allowed}"
        )
