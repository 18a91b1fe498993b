"""Save the checkpoints of a run: the newest training state, and the weights with the best validation loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from jointiq.errors import check_whole

#: Name of the checkpoint of the best validation, beside the last one.
BEST = "best.ckpt"


class LastCheckpoint(Callback):
    """Save the training state to ``path`` every ``every_steps`` steps and at the end of the training.

    The end may be a time cap, Ctrl-C or SIGTERM. After an error nothing is saved: the last good file stays.

    The state is saved between two steps, when the validation and the log row of the step are done and the next step
    has not begun. A continued training therefore goes on as if it had never stopped.

    Args:
        path: the newest checkpoint, ``last.ckpt``; the ones before it are ``last-1.ckpt``, ``last-2.ckpt``, ...
        every_steps: optimizer steps between two saves.
        keep: checkpoints that are kept, the newest among them.
        best: also keep the weights with the least ``val/loss``, as ``best.ckpt``, without optimizer state.
    """

    def __init__(self, path: str, every_steps: int, keep: int = 2, best: bool = True) -> None:
        check_whole("callbacks.checkpoint.every_steps", every_steps, 1)
        check_whole("callbacks.checkpoint.keep", keep, 1)
        self.path = Path(path)
        self.every_steps = every_steps
        self.keep = keep
        self.best = best
        self._best_loss = math.inf
        # Lightning restores its loops from their state at the end of a batch, not from one between two batches.
        self._loops: dict[str, Any] = {}
        self._loops_step = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Keep the state of Lightning's loops, for a checkpoint after this step."""
        self._loops = trainer.fit_loop.state_dict()
        self._loops_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save if the last step is a multiple of ``every_steps`` and was trained by this process."""
        if trainer.global_step == self._loops_step and trainer.global_step % self.every_steps == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights of the best validation so far."""
        loss = float(trainer.callback_metrics.get("val/loss", math.inf))
        if self.best and loss < self._best_loss and not trainer.interrupted:
            self._best_loss = loss
            trainer.save_checkpoint(self.path.with_name(BEST), storage_options={"weights": True})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state, unless no step was trained since the checkpoint that the training began from."""
        if self._loops_step >= 0:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the state of the loops at the end of the last step."""
        if self._loops_step == trainer.global_step:
            checkpoint["loops"]["fit_loop"] = self._loops

    def state_dict(self) -> dict[str, Any]:
        """Return the least ``val/loss`` so far."""
        return {"best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the least ``val/loss`` of the earlier part of the run."""
        self._best_loss = state_dict["best_loss"]

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            # Rows that are still in memory would be lost in a crash: a continued run does not log them again.
            logger.save()
        trainer.save_checkpoint(self.path, storage_options={"keep": self.keep})
