"""Folders of runs as ``src.train`` leaves them, without the training."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from jointiq.models.base import LearnedCodec
from jointiq.runs import folder as run_folder
from tests.training.tiny import config


@cache
def _composed(*groups: str) -> DictConfig:
    return config("+experiment=jointiq", "scale=demo", *groups)


def make_run(folder: Path, model: LearnedCodec, steps: int, *overrides: str) -> Path:
    """A finished run in ``folder`` with the weights of ``model``; returns its checkpoint."""
    cfg = copy.deepcopy(_composed(*(text for text in overrides if text.startswith("data="))))
    values = [text for text in overrides if not text.startswith("data=")]
    cfg = OmegaConf.merge(cfg, OmegaConf.from_dotlist([f"paths.run_dir={folder}", *values]))
    run_folder.describe(folder, cfg)
    made = json.loads((folder / "provenance.json").read_text())
    command = ["python", "-m", "src.train", "+experiment=jointiq", *overrides, f"paths.run_dir={folder}"]
    (folder / "provenance.json").write_text(json.dumps({**made, "command": command}))
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    checkpoint = folder / run_folder.CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    torch.save({"model_config": model.config, "state_dict": state, "global_step": steps}, checkpoint)
    run_folder.mark_done(folder, steps)
    return checkpoint
