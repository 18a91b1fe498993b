"""Keeps ``status.json`` in a run's folder up to date while it trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from jointiq.runs.status import read_status, write_status
from jointiq.training.callbacks.pace import Pace

_SECONDS = 5.0
_WATCHED = {"bpp": "val/bpp", "psnr": "val/psnr"}


class StatusFile(Callback):
    """Step, means of the last validation and time left, for ``python -m src.status``; written by the first process.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pace = Pace()
        self._written = 0.0
        self._values: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and say that there is a run."""
        self._pace.start(trainer, pl_module)
        # A continued run shows the last validation of its earlier part until its own first one.
        earlier = read_status(self.folder)
        self._values = {key: earlier.get(key) for key in _WATCHED}
        self._write(trainer, None)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write every few seconds."""
        if time.monotonic() - self._written >= _SECONDS:
            self._write(trainer, self._pace.seconds_left(trainer, pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the means."""
        metrics = trainer.callback_metrics
        self._values |= {key: float(metrics[name]) for key, name in _WATCHED.items() if name in metrics}
        self._write(trainer, self._pace.seconds_left(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last step."""
        self._write(trainer, None)

    def _write(self, trainer: Trainer, seconds_left: float | None) -> None:
        if trainer.is_global_zero:
            self._written = time.monotonic()
            steps = {"step": trainer.global_step, "steps": trainer.max_steps}
            write_status(self.folder, {**steps, **self._values, "seconds_left": seconds_left})


def note_failure(folder: Path, message: str) -> None:
    """Add to the status in ``folder`` that the run failed, and why (one line); nothing where there is no run yet."""
    values = read_status(folder)
    if values:
        write_status(folder, {**values, "failure": message})
