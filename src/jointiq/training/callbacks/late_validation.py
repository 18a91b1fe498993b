"""A validation that a stop has left out, made up for."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from jointiq.training.callbacks.checkpoint import LastCheckpoint
from jointiq.training.callbacks.stop import leaves_out_validation
from jointiq.training.csv_log import CsvLog


class LateValidation(Callback):
    """Makes up for a validation that a stop has left out or cut, before the continued training goes on.

    Who stops a training does not wait for a validation (:mod:`jointiq.training.callbacks.stop`), but the log of the
    whole is to be that of an unbroken one. To be placed last: what listens to validations has begun by then.
    """

    def __init__(self) -> None:
        self._due = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note whether the validation after this step is left out."""
        every = trainer.val_check_batch
        self._due = leaves_out_validation(trainer) and every is not None and trainer.global_step % every == 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether a stop has cut it."""
        self._due = leaves_out_validation(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate if it is due, and save that it is done."""
        if not self._due:
            return
        for logger in trainer.loggers:
            if isinstance(logger, CsvLog):
                logger.drop_validation(trainer.global_step)
        loop = trainer.fit_loop.epoch_loop.val_loop
        progress = loop.batch_progress.state_dict()
        loop.restarting = False
        trainer.validating = True
        loop.run()
        trainer.training = True
        # Lightning takes a validation before a checkpoint for done, and will count it.
        loop.batch_progress.load_state_dict(progress)
        if leaves_out_validation(trainer):  # stopped again: it is still due
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, LastCheckpoint):
                callback.save_at_start(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Whether a validation is due."""
        return {"due": self._due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what the stopped part of the run has left."""
        self._due = state_dict["due"]
