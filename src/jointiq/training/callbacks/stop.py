"""A clean stop on Ctrl-C, on SIGTERM, on a hang-up and on a cluster's signal before the time is up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_only

from jointiq.errors import EXIT_HUNG_UP, EXIT_TERMINATED

# Clusters announce the end of a job's time by one of these.
_CLUSTER = (signal.SIGUSR1, signal.SIGUSR2)
# All processes of a distributed run stop after the same step; asking them all makes a GPU wait.
_ASK_EVERY = 10


class StopOnSignal(Callback):
    """A signal ends the training after the current step, so that the final state is saved whole.

    The validation after that step is left out; one that runs, in one process, is cut after its current image. The log
    lacks the row of either.

    Ctrl-C twice is obeyed at once and saves nothing. After SIGUSR1 and SIGUSR2 a SLURM job is queued again once the
    state is saved, and who listens to them already (submitit) is told then. A hang-up that is ignored (``nohup``) stays
    so.
    """

    def __init__(self) -> None:
        #: The signal that asked for the stop; 0: none.
        self.received = 0
        self._previous: dict[int, Any] = {}
        self._listener: Any = None
        self._in_slurm = False
        self._frame: Any = None

    @property
    def stopped(self) -> bool:
        """True once the training was asked to stop."""
        return self.received != 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals (possible in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._in_slurm = SLURMEnvironment.detect()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *_CLUSTER):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals in a validation of the end result, too."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_train_start(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop if asked to; all processes of a distributed run stop after the same step."""
        number = self.received
        if trainer.world_size > 1:
            number = 0 if trainer.global_step % _ASK_EVERY else _largest(trainer, number)
        if number:
            self._stop(trainer, number)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop if asked to: the images that remain are passed over.

        A distributed validation is finished: its processes have different numbers of images and cannot ask each other.
        """
        if self.received and trainer.world_size == 1:
            self._stop(trainer, self.received)

    def _stop(self, trainer: Trainer, number: int) -> None:
        self.received = number
        trainer.should_stop = True
        trainer.limit_val_batches = 0  # Lightning would validate once more
        trainer.state.status = TrainerStatus.INTERRUPTED

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back, but for those that Lightning has given back already.

        What was there before is Lightning's own handler then, which after the training asks processes that have ended.
        """
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._previous = {}

    def leave(self, first_process: bool) -> None:
        """End this process as the signal asks, after the state is saved.

        Args:
            first_process: the other processes of a distributed run end as if nothing had happened, so that Lightning
                does not take the first one down before it is finished.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SystemExit: code 129 on a hang-up, else 143, or what a cluster's listener decides.
        """
        if self.received in _CLUSTER:
            if callable(self._listener):
                self._listener(self.received, self._frame)
            elif self._in_slurm and first_process:
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
        if not first_process:
            return
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(EXIT_HUNG_UP if self.received == signal.SIGHUP else EXIT_TERMINATED)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received, self._frame = number, frame
        self._listener = self._previous.get(number)
        again = " (Ctrl-C again: at once, without saving)" if number == signal.SIGINT else ""
        with contextlib.suppress(OSError):  # the terminal that hangs up
            _say(f"\nstopping after this step{again}")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _largest(trainer: Trainer, number: int) -> int:
    """The largest of the processes' numbers."""
    return int(trainer.strategy.reduce(torch.tensor(number, device=trainer.strategy.root_device), reduce_op="max"))


@contextlib.contextmanager
def queued_again() -> Iterator[None]:
    """While this context lasts, SIGUSR1 and SIGUSR2 have a SLURM job queued again, at whatever moment they come.

    While a model trains, :class:`StopOnSignal` has its state saved first. Nothing is changed where someone else listens
    (submitit). The further processes of a distributed run leave it to the first one.
    """

    def again(number: int, frame: Any) -> None:
        if getattr(rank_zero_only, "rank", 0) == 0:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
            sys.exit(EXIT_TERMINATED)

    ours = []
    if SLURMEnvironment.detect() and threading.current_thread() is threading.main_thread():
        ours = [number for number in _CLUSTER if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, again)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
