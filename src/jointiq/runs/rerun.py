"""A run again, from its saved configuration (``rerun=FOLDER``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from jointiq.errors import UserError
from jointiq.runs.folder import CONFIG, is_inside, read_config

# Stands for a key that a configuration lacks: values may be None.
_ABSENT = object()


def again(folder: str | Path, overrides: Sequence[str]) -> DictConfig:
    """The configuration that repeats the run in ``folder``, in a folder beside it, ``FOLDER.rerun``.

    Args:
        overrides: ``key=value`` as typed, for single values of the saved configuration; they win.

    Raises:
        UserError: no configuration there, or an override that is not of that kind.
    """
    cfg = read_config(folder)
    continued = is_inside(Path(cfg.paths.run_dir), cfg.ckpt_path)
    if "resume" not in cfg:
        OmegaConf.update(cfg, "resume", "auto", force_add=True)
    cfg.paths.run_dir = str(Path(folder).with_name(f"{Path(folder).resolve().name}.rerun"))
    cfg.rerun = str(folder)
    if continued:
        cfg.ckpt_path = None
    for text in overrides:
        _change(cfg, text, folder)
    return cfg


def _change(cfg: DictConfig, text: str, folder: str | Path) -> None:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UserError(f"{text}: {str(error).splitlines()[0]}") from error
    key = override.key_or_group
    known = OmegaConf.select(cfg, key, default=_ABSENT, throw_on_resolution_failure=False)
    plain = override.type == OverrideType.CHANGE and not override.is_sweep_override()
    if known is _ABSENT or OmegaConf.is_dict(known) or not plain:
        raise UserError(f"{text} does not go with rerun=; allowed: KEY=VALUE for a value of {Path(folder) / CONFIG}")
    OmegaConf.update(cfg, key, override.value())
