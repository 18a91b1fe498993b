"""A validation that a stop has left out, made up for."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from src.training.callbacks import LastCheckpoint


class LateValidation(Callback):
    """Makes up for a validation that was due when the training was stopped, before the continued one goes on.

    Who stops a training does not wait for a validation (:class:`src.training.stop.StopOnSignal`), but the log of the
    whole is to be that of an unbroken one. To be placed last: what listens to validations has begun by then.
    """

    def __init__(self) -> None:
        self._due = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note whether the validation after this step is left out."""
        stopped, every = trainer.should_stop and trainer.limit_val_batches == 0, trainer.val_check_batch
        self._due = stopped and every is not None and trainer.global_step % every == 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate if it is due, and save that it is done."""
        if not self._due:
            return
        self._due = False
        loop = trainer.fit_loop.epoch_loop.val_loop
        progress = loop.batch_progress.state_dict()
        loop.restarting = False
        trainer.validating = True
        loop.run()
        trainer.training = True
        # Lightning takes a validation before a checkpoint for done, and will count it.
        loop.batch_progress.load_state_dict(progress)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, LastCheckpoint):
                callback.save_at_start(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Whether a validation is due."""
        return {"due": self._due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what the stopped part of the run has left."""
        self._due = state_dict["due"]
