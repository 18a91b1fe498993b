"""What a command does with an earlier run: go on after its last checkpoint (``resume=``), or repeat it (``rerun=``)."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from jointiq.configs import compose, literal
from jointiq.errors import ConfigError, UserError
from jointiq.runs import folder as run_folder
from jointiq.runs.name import what_is_typed

CHOICES = ("auto", "never")

# Keys that the configurations of earlier versions lack.
_LATER_KEYS = {"resume": "auto", "optimized_metric": "val/loss", "tags": [], "test": True, "typed": [], "tf32": True}
# Stands for a key that a configuration lacks: values may be None.
_ABSENT = object()
_OPEN_ERRORS = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        checkpoint: the checkpoint it continues; None: at step 0.
        finished: nothing is left to do.
        warnings: what could not be used, one line each.
        state: what the checkpoint holds, where it has been read to see that it is whole.
    """

    checkpoint: str | None = None
    finished: bool = False
    warnings: tuple[str, ...] = ()
    state: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    def read(self) -> dict[str, Any] | None:
        """Return what the checkpoint holds; None at step 0.

        Raises:
            UserError: see :func:`read_checkpoint`.
        """
        if self.checkpoint is None or self.state is not None:
            return self.state
        return read_checkpoint(self.checkpoint)


def find_start(folder: Path, cfg: DictConfig) -> Start:
    """Return where the run of ``cfg`` in ``folder`` begins.

    A finished run of the same configuration is finished, one that was cut goes on from the newest of its checkpoints
    that is whole, and everything else starts anew: at ``ckpt_path``, or at step 0. Every process of a distributed run
    comes to the same answer, whatever the first one has written by then.

    Raises:
        ConfigError: unknown value of ``resume``.
    """
    held = not begins_anew(cfg) and _is_held(folder, cfg)
    # A run that has gone on from its own last checkpoint to the end.
    own = cfg.ckpt_path is not None and Path(cfg.ckpt_path).resolve() == (folder / run_folder.CHECKPOINT).resolve()
    if (held or (own and run_folder.has_same_key(folder, cfg))) and (folder / run_folder.DONE).is_file():
        return Start(finished=True)
    if not held:
        return Start(cfg.ckpt_path)
    start = newest(folder)
    return start if start.checkpoint is not None else Start(cfg.ckpt_path, warnings=start.warnings)


def begins_anew(cfg: DictConfig) -> bool:
    """Return whether the run of ``cfg`` leaves aside what its folder holds.

    Raises:
        ConfigError: unknown value of ``resume``.
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
    """Return the newest whole checkpoint of the run in ``folder``, with a warning for each newer, damaged one."""
    warnings: list[str] = []
    for path in run_folder.checkpoints(folder):
        try:
            return Start(str(path), warnings=tuple(warnings), state=read_checkpoint(path))
        except UserError as error:
            warnings.append(f"warning: {error}; the one before it is tried")
    return Start(warnings=tuple(warnings))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read all of a checkpoint that a training wrote, onto the CPU, without running anything that is in it.

    Raises:
        UserError: no such file, a damaged one (cut short, or a byte of it changed), or one without training state.
    """
    import torch  # late: commands that refuse a mistake do not wait for it

    expected = "a checkpoints/last.ckpt that src.train wrote"
    if not Path(path).is_file():
        raise UserError(f"ckpt_path={path}: no such file; allowed: {expected}")
    try:
        file = io.BytesIO(Path(path).read_bytes())
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise UserError(f"ckpt_path={path} is damaged (checksum of {damaged}); allowed: {expected}")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign files
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except _OPEN_ERRORS as error:
        raise UserError(f"ckpt_path={path} cannot be opened (damaged or foreign); allowed: {expected}") from error
    needed = ("model_config", "state_dict", "optimizer_states", "global_step")
    if not isinstance(checkpoint, dict) or not all(key in checkpoint for key in needed):
        raise UserError(f"ckpt_path={path} holds no training state; allowed: {expected}")
    return checkpoint


def config_to_train(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return what a command trains: ``cfg`` as composed from ``overrides`` or, with ``rerun=``, the earlier run's.

    ``typed`` is filled in.

    Raises:
        UserError: see :func:`config_for_rerun`.
    """
    if cfg.rerun is None:
        cfg.typed = what_is_typed(overrides)
        return cfg
    return config_for_rerun(cfg.rerun, [text for text in overrides if not text.startswith("rerun=")])


def config_for_rerun(folder: str | Path, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that repeats the run in ``folder``, in a folder beside it, ``FOLDER.rerun``.

    Args:
        overrides: ``key=value`` as typed, for single values of the saved configuration; they win.

    Raises:
        UserError: no configuration there, or an override that is not of that kind.
    """
    cfg = run_folder.read_config(folder)
    continued = run_folder.is_inside(Path(cfg.paths.run_dir), cfg.ckpt_path)
    for key, value in _LATER_KEYS.items():
        if key not in cfg:
            OmegaConf.update(cfg, key, value, force_add=True)
    _renew_classes(cfg)
    cfg.paths.run_dir = literal(str(Path(folder).with_name(f"{Path(folder).resolve().name}.rerun")))
    cfg.rerun = literal(str(folder))
    if continued:
        cfg.ckpt_path = None
    for text in overrides:
        _change(cfg, text, folder)
    return cfg


def _renew_classes(cfg: DictConfig) -> None:
    """Take today's callbacks and loggers where ``cfg`` names those of a version before the package ``jointiq``.

    They decide nothing of what is learned.
    """
    with open_dict(cfg):
        for group in ("callbacks", "logger"):
            earlier = [name for name, one in cfg[group].items() if str(one.get("_target_")).startswith("src.")]
            if not earlier:
                continue
            today = compose("train", ["logger=wandb"])[group]
            renewed = today if group == "callbacks" else {name: today[name] for name in earlier if name in today}
            cfg[group] = {**{name: one for name, one in cfg[group].items() if name not in earlier}, **renewed}


def _change(cfg: DictConfig, text: str, folder: str | Path) -> None:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UserError(f"{text}: {str(error).splitlines()[0]}") from error
    key = override.key_or_group
    known = OmegaConf.select(cfg, key, default=_ABSENT, throw_on_resolution_failure=False)
    plain = override.type == OverrideType.CHANGE and not override.is_sweep_override()
    if known is _ABSENT or OmegaConf.is_dict(known) or not plain:
        allowed = f"KEY=VALUE for a value of {Path(folder) / run_folder.CONFIG}"
        raise UserError(f"{text} does not go with rerun=; allowed: {allowed}")
    OmegaConf.update(cfg, key, override.value())
