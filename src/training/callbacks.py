"""Lightning callbacks: the checkpoint that is always there, and a clean stop on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class LastCheckpoint(Callback):
    """Keep ``path`` at the newest state: every ``every_steps`` steps, and whenever the training ends in order.

    "In order" includes a time cap and Ctrl-C. After a failure the file is left as it is: the last good one.
    """

    def __init__(self, path: str, every_steps: int) -> None:
        self.path = Path(path)
        self.every_steps = every_steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save on every multiple of ``every_steps`` and when asked to stop; the last step is left to the end."""
        step = trainer.global_step
        if step != trainer.max_steps and (trainer.should_stop or step % self.every_steps == 0):
            trainer.save_checkpoint(self.path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        trainer.save_checkpoint(self.path)


class StopOnInterrupt(Callback):
    """Ctrl-C ends the training after the current step, so that the final state is saved whole. A second one is obeyed
    at once and saves nothing.
    """

    def __init__(self) -> None:
        #: True once Ctrl-C was pressed.
        self.interrupted = False
        self._previous: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over SIGINT (possible in the main thread only)."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop if asked to; all processes of a distributed run stop after the same step."""
        stop = self.interrupted
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self.interrupted = True
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # nobody who presses Ctrl-C waits for a validation

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give SIGINT back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("\nstopping after this step (Ctrl-C again: at once, without saving)", flush=True)
