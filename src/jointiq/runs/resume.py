"""Continue an earlier run from its last checkpoint (``resume=``), or repeat it from its saved config (``rerun=``)."""

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

from jointiq.coding import CHECKPOINT
from jointiq.configs import compose, literal
from jointiq.errors import ConfigError, UserError
from jointiq.runs import folder as run_folder
from jointiq.runs.name import curve_overrides

CHOICES = ("auto", "never")

# Keys that saved configs of earlier versions lack, with their defaults.
_LATER_KEYS = {"resume": "auto", "optimized_metric": "val/loss", "tags": [], "test": True, "typed": [], "tf32": True}
# Stands for a key that a config lacks, because a value may be None.
_ABSENT = object()
_OPEN_ERRORS = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        checkpoint: the checkpoint to continue from; None: begin at step 0.
        finished: nothing is left to do.
        warnings: a line for each checkpoint that cannot be used.
        state: contents of the checkpoint, where it has been read already to check it.
    """

    checkpoint: str | None = None
    finished: bool = False
    warnings: tuple[str, ...] = ()
    state: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    def read(self) -> dict[str, Any] | None:
        """Return the contents of the checkpoint; None at step 0.

        Raises:
            UserError: see :func:`read_checkpoint`.
        """
        if self.checkpoint is None or self.state is not None:
            return self.state
        return read_checkpoint(self.checkpoint)


def find_start(folder: Path, cfg: DictConfig) -> Start:
    """Return where the run of ``cfg`` in ``folder`` begins.

    A finished run of the same configuration stays finished. An unfinished one continues from its newest undamaged
    checkpoint. Everything else begins at ``ckpt_path``, or at step 0. All processes of a distributed run get the same
    result, whatever the first one has written by then.

    Raises:
        ConfigError: unknown value of ``resume``.
    """
    held = not begins_anew(cfg) and _is_held(folder, cfg)
    # A run that was continued from its own last checkpoint to the end.
    own = cfg.ckpt_path is not None and Path(cfg.ckpt_path).resolve() == (folder / CHECKPOINT).resolve()
    if (held or (own and run_folder.has_same_key(folder, cfg))) and (folder / run_folder.DONE).is_file():
        return Start(finished=True)
    if not held:
        return Start(cfg.ckpt_path)
    start = newest(folder)
    return start if start.checkpoint is not None else Start(cfg.ckpt_path, warnings=start.warnings)


def begins_anew(cfg: DictConfig) -> bool:
    """Return whether the run of ``cfg`` ignores what its folder holds.

    Raises:
        ConfigError: unknown value of ``resume``.
    """
    choice = OmegaConf.select(cfg, "resume", default="auto")
    if choice not in CHOICES:
        raise ConfigError("resume", choice, CHOICES)
    # A requeued job of a cluster has begun anew already, and is to continue.
    return choice == "never" and os.environ.get("SLURM_RESTART_COUNT", "0") == "0"


def _is_held(folder: Path, cfg: DictConfig) -> bool:
    """Return whether ``folder`` holds the run of ``cfg``, begun at the same ``ckpt_path`` where there is one.

    If ``ckpt_path`` is in the folder itself, the answer is no: it may name an earlier checkpoint on purpose.
    """
    if not run_folder.has_same_key(folder, cfg):
        return False
    if cfg.ckpt_path is None:
        return True
    return run_folder.read_config(folder).ckpt_path == cfg.ckpt_path and not run_folder.is_inside(folder, cfg.ckpt_path)


def newest(folder: Path) -> Start:
    """Return the newest undamaged checkpoint of the run in ``folder``, with a warning for each newer, damaged one."""
    warnings: list[str] = []
    for path in run_folder.checkpoints(folder):
        try:
            return Start(str(path), warnings=tuple(warnings), state=read_checkpoint(path))
        except UserError as error:
            warnings.append(f"warning: {error}; the one before it is tried")
    return Start(warnings=tuple(warnings))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint to the CPU, without running any code in it.

    Raises:
        UserError: no such file, a damaged one (cut short, or a byte changed), or one without training state.
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
    """Return the config to train: ``cfg`` as composed from ``overrides``, with ``typed`` set, or that of ``rerun=``.

    Raises:
        UserError: see :func:`config_for_rerun`.
    """
    if cfg.rerun is None:
        cfg.typed = curve_overrides(overrides)
        return cfg
    return config_for_rerun(cfg.rerun, [text for text in overrides if not text.startswith("rerun=")])


def config_for_rerun(folder: str | Path, overrides: Sequence[str]) -> DictConfig:
    """Return the config that repeats the run in ``folder``, in a folder beside it, ``FOLDER.rerun``.

    Args:
        overrides: ``key=value`` as typed, which replace single values of the saved config.

    Raises:
        UserError: no config there, or an override that does not replace a single value.
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
    """Replace callbacks and loggers of versions before the package ``jointiq`` by today's.

    They have no influence on what is learned.
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
