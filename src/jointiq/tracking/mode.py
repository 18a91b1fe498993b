"""Decide whether W&B logs online or offline."""

from __future__ import annotations

import os

from jointiq.errors import ConfigError, UserError

#: Default project of all runs.
PROJECT = "jointiq"
#: Values of WANDB_MODE; "dryrun" is "offline", "run" is "online".
MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")


def is_offline(project: str = PROJECT, offline: bool | None = None) -> bool:
    """Return whether runs of ``project`` are logged offline, by ``logger.wandb.offline``, WANDB_MODE, or the login.

    Raises:
        ConfigError: a mode or project that W&B does not know.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in MODES:
        raise ConfigError("WANDB_MODE", mode, MODES)
    if offline not in (True, False, None):
        raise ConfigError("logger.wandb.offline", offline, "true, false, or null: offline unless logged in")
    try:
        wandb.Settings(project=project)
    except (wandb.Error, ValueError) as error:
        raise ConfigError("logger.wandb.project", project, f"what W&B takes: {error}") from error
    if offline is not None:
        return offline
    return mode in ("offline", "dryrun") if mode else not is_logged_in()


def is_logged_in() -> bool:
    """Return whether W&B finds the user's key (``wandb login``, WANDB_API_KEY), without asking for it.

    Raises:
        UserError: W&B finds a malformed key.
    """
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.Error as error:
        raise UserError(f"W&B: {error}; allowed: wandb login, or WANDB_MODE=offline") from error
