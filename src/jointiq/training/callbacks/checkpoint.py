"""Lightning callbacks: the checkpoints that are always there, averaged weights, the speed."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jointiq.errors import check_whole
from jointiq.training.callbacks.pace import Pace

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

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the state of Lightning's loops that a continued training takes up from."""
        self._loops = copy.deepcopy(checkpoint["loops"]["fit_loop"])

    def save_at_start(self, trainer: Trainer) -> None:
        """Save before the first step of a continued training."""
        self._loops_step = trainer.global_step
        self._save(trainer)
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
        if self.best and loss < self._best_loss and not trainer.sanity_checking:
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
    """Log ``steps_per_second`` and ``hours_left`` beside the other metrics.

    The speed is that between two rows of the log, validation not counted; the time left is an estimate from the whole
    training since this process began it.
    """

    def __init__(self) -> None:
        self._since = self._paused = 0.0
        self._steps = 0
        self._pace = Pace()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since, self._steps = time.monotonic(), 0
        self._pace.start(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log where Lightning logs."""
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = time.monotonic()
            pl_module.log("steps_per_second", self._steps / max(now - self._since, 1e-9))
            pl_module.log("hours_left", self._pace.seconds_left(trainer, pl_module) / 3600)
            self._since, self._steps = now, 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let it go on."""
        self._since += time.monotonic() - self._paused
