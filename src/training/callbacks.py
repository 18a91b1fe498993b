"""Lightning callbacks: the checkpoint that is always there, a clean stop on Ctrl-C, averaged weights, the speed."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


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


class WeightMean(WeightAveraging):
    """Lightning's running mean of the weights, mean = decay * mean + (1 - decay) * weights after each step.

    Checkpoints hold the mean in ``state_dict`` and what a continued training needs beside it; validation sees the mean.
    To be placed before :class:`LastCheckpoint`, which is to save the mean with this step in it.
    """

    def __init__(self, decay: float) -> None:
        # The multi-tensor form interpolates, so that frozen weights stay what they are to the bit.
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the copy on the device of the training; the module itself is moved there later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module as trained, not averaged: its checkpoint is to be one that can be continued."""


class Speed(Callback):
    """Log ``steps_per_second`` beside the other metrics: the time between two rows of the log, without validation."""

    def __init__(self) -> None:
        self._since = self._paused = 0.0
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since, self._steps = time.monotonic(), 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log where Lightning logs."""
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = time.monotonic()
            pl_module.log("steps_per_second", self._steps / max(now - self._since, 1e-9))
            self._since, self._steps = now, 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let it go on."""
        self._since += time.monotonic() - self._paused
