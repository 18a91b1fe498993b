"""Training checkpoints as files: written whole or not at all, opened without running anything that is in them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from src.errors import UserError
from src.files import atomic_path

_OPEN_ERRORS = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file format; the file appears in one step, and is read with ``weights_only``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path`` atomically.

        Raises:
            UserError: the file cannot be written.
        """
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint of :meth:`save_checkpoint`.

        Raises:
            UserError: no such file, or not a checkpoint.
        """
        return read_training_checkpoint(path)


def read_training_checkpoint(path: str | Path) -> dict[str, Any]:
    """Open a checkpoint that ``src.train`` wrote, on the CPU.

    Raises:
        UserError: no such file, a damaged one, or one that holds no training state.
    """
    expected = "a checkpoints/last.ckpt that src.train wrote"
    if not Path(path).is_file():
        raise UserError(f"ckpt_path={path}: no such file; allowed: {expected}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except _OPEN_ERRORS as error:
        raise UserError(f"ckpt_path={path} cannot be opened (damaged or foreign); allowed: {expected}") from error
    needed = ("model_config", "state_dict", "optimizer_states", "global_step")
    if not isinstance(checkpoint, dict) or not all(key in checkpoint for key in needed):
        raise UserError(f"ckpt_path={path} holds no training state; allowed: {expected}")
    return checkpoint


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
    """Refuse to continue a training with a running mean of the weights without it, and the other way round.

    Raises:
        UserError: says which of the two it is.
    """
    averaged = "averaging_state" in checkpoint
    if averaged != averages:
        there, here = ("with" if on else "without" for on in (averaged, averages))
        allowed = "optim.ema_decay=.. as there" if averaged else "optim.ema_decay=null"
        raise UserError(
            f"ckpt_path={path} was trained {there} a mean of the weights, this is {here}; allowed: {allowed}"
        )
