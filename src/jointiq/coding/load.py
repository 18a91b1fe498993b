"""Trained models from files: a training checkpoint of ``src.train``, or an export of ``src.export``.

State dicts in CompressAI's layouts (``.pth.tar``: bare, or under the key ``state_dict``) are read too, of our models
and of CompressAI's own (:mod:`jointiq.models.compressai_codec`).
"""

from __future__ import annotations

import json
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import torch

from jointiq.coding import CHECKPOINT, EXPORT, PTH_TAR
from jointiq.coding.export import read_export
from jointiq.coding.shipped import path_of, shipped_models
from jointiq.errors import ModelError, UserError
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec
from jointiq.models.compressai_codec import CompressAICodec
from jointiq.models.objective import Objective
from jointiq.models.state import CONFIG

_NET = "net."
# Where CompressAI's tools look for a state dict in a checkpoint.
_STATES = ("network", "state_dict", "model_state_dict")
# What torch.load raises depends on the bytes; these were seen with random and damaged files.
_UNREADABLE = (
    pickle.UnpicklingError, struct.error, RuntimeError, EOFError, LookupError, TypeError, AttributeError, ValueError,
    AssertionError,
)  # fmt: skip


def load_model(path: str | Path, device: torch.device | str = "cpu") -> LearnedCodec:
    """Load the model in ``path`` (a file, the folder of a run, or a shipped model's name), in evaluation mode.

    Raises:
        UserError: no such file, or not one of ours. Nothing in it is executed.
        ModelError: weights that are not finite.
    """
    path = path_of(path)
    try:
        if path.is_dir():
            if not (path / CHECKPOINT).is_file():
                raise UserError(f"{path}: no folder of a run, which has {CHECKPOINT}")
            path /= CHECKPOINT
        if not path.is_file():
            names = ", ".join(one.name for one in shipped_models())
            raise UserError(f"{path}: no such checkpoint" + (f", and no shipped model ({names})" if names else ""))
        model = read_export(path) if path.suffix == EXPORT else read_training_checkpoint(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ModelError(f"{path}: its weights {name} are not finite; the training diverged or the file is damaged")
    return model.to(device).eval()


def read_training_checkpoint(path: Path) -> LearnedCodec:
    """Load the network of a Lightning checkpoint of ``src.train``, or of a bare state dict.

    Raises:
        UserError: not such a checkpoint.
    """
    allowed = (
        f"a .ckpt of src.train, a {EXPORT} or {PTH_TAR} of src.export, or a {PTH_TAR} of CompressAI's image models"
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged files
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state = next((checkpoint[key] for key in _STATES if key in checkpoint), checkpoint)
        if CONFIG in state:
            config, weights = json.loads(bytes(state[CONFIG].tolist())), state
        elif "model_config" not in checkpoint:
            return CompressAICodec.from_zoo(state)
        else:
            config = checkpoint["model_config"]
            weights = {name.removeprefix(_NET): value for name, value in state.items() if name.startswith(_NET)}
    except _UNREADABLE as error:
        raise UserError(f"{path} is not a checkpoint of this project; allowed: {allowed}") from error
    try:
        model = build_model(config)
        model.load_state_dict(weights)
        model.objective = Objective.read(checkpoint)
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        raise UserError(f"{path}: its weights do not fit its configuration") from error
    return model
