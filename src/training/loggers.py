"""Where metrics go: always a CSV file, on request Weights & Biases."""

from __future__ import annotations

import csv
import glob
import hashlib
import netrc
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from src.errors import UserError
from src.files import atomic_path


class CsvLog(CSVLogger):
    """``metrics.csv`` in ``folder``. A continued run keeps the rows of the steps before it."""

    def __init__(self, folder: str) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._file = Path(folder) / "metrics.csv"

    @rank_zero_only
    def keep_until(self, step: int) -> None:
        """Keep the rows of an earlier part of this run up to ``step`` optimizer steps; later ones are trained again.

        To be called before the first metric is logged.
        """
        if not self._file.is_file():
            return
        with self._file.open(newline="") as stream:
            reader = csv.DictReader(stream)
            # Lightning numbers rows from 0: row `step` belongs to the step after `step` finished ones.
            rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < step]
            keys = list(reader.fieldnames or ())
        writer = self.experiment  # its construction removes the file
        with atomic_path(self._file) as temporary, temporary.open("w", newline="") as stream:
            rewriter = csv.DictWriter(stream, fieldnames=keys, extrasaction="ignore")
            rewriter.writeheader()
            rewriter.writerows(rows)
        writer.metrics_keys = keys


def wandb_logger(
    project: str, group: str, save_dir: str, offline: bool | None = None, values: Any = None, **options: Any
) -> Logger:
    """A W&B logger; ``offline=None`` records offline unless the user is logged in or has set WANDB_MODE.

    Args:
        project, group: where the run appears.
        save_dir: folder of W&B's own files.
        values: the resolved configuration, which the run shows.
        options: further arguments of ``wandb.init``, such as ``entity`` or ``tags``.

    Raises:
        UserError: wandb is not installed.
    """
    try:
        from lightning.pytorch.loggers import WandbLogger

        if offline is None:
            offline = "WANDB_MODE" not in os.environ and not _is_logged_in()
        if offline:
            options["mode"] = "offline"
        if values is not None:
            options["config"] = OmegaConf.to_container(values, resolve=True)
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        return WandbLogger(project=project, group=group, save_dir=save_dir, offline=offline, **options)
    except ModuleNotFoundError as error:
        raise UserError("logger=wandb needs the package wandb; allowed: pip install wandb, or logger=csv") from error


def wandb_identity(folder: Path, results: Path) -> dict[str, str]:
    """``id`` and ``name`` of the W&B run that belongs to a run's ``folder``.

    The id is the same whenever the run is continued, and another one where an earlier run of this configuration has
    been moved aside. The name is the folder's, with its experiment's and stage's where it lies in ``results/runs``.
    """
    folder, runs = folder.resolve(), (results / "runs").resolve()
    moved = sum(1 for _ in folder.parent.glob(f"{glob.escape(folder.name)}.old*"))
    identity = hashlib.sha256(f"{folder}#{moved}".encode()).hexdigest()[:16]
    inside = folder.relative_to(runs).as_posix() if folder.is_relative_to(runs) else folder.name
    return {"id": identity, "name": inside}


def _is_logged_in() -> bool:
    """Whether `wandb login` (or WANDB_API_KEY) has left a key; asks neither the user nor the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def finish_wandb() -> None:
    """Close the W&B run of this process, if there is one."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
