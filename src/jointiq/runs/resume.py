"""Where a run begins: anew, or after the steps that its folder holds already (``resume=auto``)."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from jointiq.errors import ConfigError, UserError
from jointiq.runs import folder as run_folder
from jointiq.training.callbacks.checkpoint_io import read_training_checkpoint

CHOICES = ("auto", "never")


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        checkpoint: the checkpoint it continues; None: at step 0.
        finished: nothing is left to do.
        warnings: what could not be used, one line each.
    """

    checkpoint: str | None = None
    finished: bool = False
    warnings: tuple[str, ...] = ()


def find_start(folder: Path, cfg: DictConfig) -> Start:
    """Where the run of ``cfg`` in ``folder`` begins.

    A finished run of the same configuration is finished, one that was cut goes on from the newest of its checkpoints
    that is whole, and everything else starts anew: at ``ckpt_path``, or at step 0. Every process of a distributed run
    comes to the same answer, whatever the first one has written by then.

    Raises:
        ConfigError: a value of ``resume`` that there is not.
    """
    if begins_anew(cfg) or not _is_held(folder, cfg):
        return Start(cfg.ckpt_path)
    if (folder / run_folder.DONE).is_file():
        return Start(finished=True)
    start = newest(folder)
    return start if start.checkpoint is not None else Start(cfg.ckpt_path, warnings=start.warnings)


def begins_anew(cfg: DictConfig) -> bool:
    """Whether the run of ``cfg`` leaves aside what its folder holds.

    Raises:
        ConfigError: a value of ``resume`` that there is not.
    """
    choice = OmegaConf.select(cfg, "resume", default="auto")
    if choice not in CHOICES:
        raise ConfigError("resume", choice, CHOICES)
    # A cluster's job that is queued again is the same one: it has begun anew already.
    return choice == "never" and os.environ.get("SLURM_RESTART_COUNT", "0") == "0"


def _is_held(folder: Path, cfg: DictConfig) -> bool:
    """Whether ``folder`` holds the run of ``cfg``, which, where ``ckpt_path`` is given, has begun there.

    A checkpoint of the folder itself is always gone back to: it may be an earlier one on purpose.
    """
    if not run_folder.has_same_key(folder, cfg):
        return False
    if cfg.ckpt_path is None:
        return True
    return run_folder.read_config(folder).ckpt_path == cfg.ckpt_path and not run_folder.is_inside(folder, cfg.ckpt_path)


def newest(folder: Path) -> Start:
    """The newest whole checkpoint of the run in ``folder``, with a warning for each newer one that is damaged."""
    warnings: list[str] = []
    for path in run_folder.checkpoints(folder):
        try:
            check_whole(path)
        except UserError as error:
            warnings.append(f"warning: {error}; the one before it is tried")
        else:
            return Start(str(path), warnings=tuple(warnings))
    return Start(warnings=tuple(warnings))


def check_whole(path: Path) -> None:
    """Read all of a checkpoint.

    Raises:
        UserError: it is damaged: cut short, or a byte of it changed.
    """
    read_training_checkpoint(path)
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise UserError(f"ckpt_path={path} is damaged (checksum of {damaged})")
