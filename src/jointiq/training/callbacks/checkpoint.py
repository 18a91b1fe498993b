"""The checkpoints of a run: the newest state, between two steps, and the weights of the best validation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from jointiq.errors import check_whole

#: Name of the checkpoint of the best validation, beside the last one.
BEST = "best.ckpt"


class LastCheckpoint(Callback):
    """Keep ``path`` at the newest state: every ``every_steps`` steps, and whenever the training ends in order.

    "In order" includes a time cap, Ctrl-C and SIGTERM. After a failure the file is left as it is: the last good one.
    The state is the one between two steps: all of a step is over, its validation and its row of the log too, and the
    next one has not begun, so that a continued training goes on as if it had never stopped.

    Args:
        path: the newest checkpoint, ``last.ckpt``; the ones before it are ``last-1.ckpt``, ``last-2.ckpt``, ...
        every_steps: optimizer steps between two saves.
        keep: checkpoints that are kept, the newest among them.
        best: also keep the weights with the least ``val/loss``, as ``best.ckpt``, without what a training needs to go
            on.
    """

    def __init__(self, path: str, every_steps: int, keep: int = 2, best: bool = True) -> None:
        check_whole("callbacks.checkpoint.every_steps", every_steps, 1)
        check_whole("callbacks.checkpoint.keep", keep, 1)
        self.path = Path(path)
        self.every_steps = every_steps
        self.keep = keep
        self.best = best
        self._best_loss = math.inf
        # Lightning's loops take up from what they were at the end of a batch, not between two.
        self._loops: dict[str, Any] = {}
        self._loops_step = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note the state of Lightning's loops, for a checkpoint after this step."""
        self._loops = trainer.fit_loop.state_dict()
        self._loops_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save after every multiple of ``every_steps`` steps that this process has trained."""
        if trainer.global_step == self._loops_step and trainer.global_step % self.every_steps == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights of the best validation so far."""
        loss = float(trainer.callback_metrics.get("val/loss", math.inf))
        if self.best and loss < self._best_loss and not trainer.interrupted:
            self._best_loss = loss
            trainer.save_checkpoint(self.path.with_name(BEST), storage_options={"weights": True})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state, unless no step was trained: then it is the one of the checkpoint it came from."""
        if self._loops_step >= 0:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put in the state of the loops after the last step."""
        if self._loops_step == trainer.global_step:
            checkpoint["loops"]["fit_loop"] = self._loops

    def state_dict(self) -> dict[str, Any]:
        """The least ``val/loss`` so far."""
        return {"best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the least ``val/loss`` of an earlier part of the run."""
        self._best_loss = state_dict["best_loss"]

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            # Rows that only this process knows would be missing after a crash: a continued run does not log them again.
            logger.save()
        trainer.save_checkpoint(self.path, storage_options={"keep": self.keep})
