"""Stop a training cleanly: on Ctrl-C, SIGTERM, SIGHUP, a cluster's signal, and when one of its processes is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_only

from jointiq.errors import EXIT_HUNG_UP, EXIT_TERMINATED, EXIT_USER_ERROR
from jointiq.runs.status import note_failure

# Clusters send one of these shortly before a job's time limit.
_CLUSTER = (signal.SIGUSR1, signal.SIGUSR2)
# Steps between two exchanges in which the processes of a distributed run agree to stop; each makes a GPU wait.
_ASK_EVERY = 10
# Seconds in which a process may find out by itself that another one has ended, or meet the same error.
_GRACE = 10.0
# Seconds between two looks at the other processes, and the name of Lightning's thread that does the same.
_POLL, _LIGHTNINGS_WATCH = 0.1, "child-process-observer"
#: What is said when another process of the training has ended before its time.
LOST = "another process of this training has ended; the same command goes on"


class StopOnSignal(Callback):
    """End the training after the current step when a signal comes, so that the final state is saved.

    The validation after that step is skipped. One that is running in a single process ends after its current image.
    Neither is logged.

    A second Ctrl-C ends the process at once, without saving. After SIGUSR1 or SIGUSR2, once the state is saved, an
    earlier handler of the signal (submitit's) is called; without one a SLURM job is requeued. SIGHUP stays ignored
    under ``nohup``.
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
        """Install the signal handlers, which only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._in_slurm = SLURMEnvironment.detect()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *_CLUSTER):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers for a validation after the training, too."""
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
        """Stop if asked to; the remaining images are skipped.

        A distributed validation runs to its end: its processes have different numbers of images and cannot agree.
        """
        if self.received and trainer.world_size == 1:
            self._stop(trainer, self.received)

    def _stop(self, trainer: Trainer, number: int) -> None:
        self.received = number
        trainer.should_stop = True
        trainer.limit_val_batches = 0  # Lightning would validate once more
        trainer.state.status = TrainerStatus.INTERRUPTED

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the earlier signal handlers, except where Lightning has replaced ours already.

        There the earlier handler is Lightning's own, which after the training would ask processes that have ended.
        """
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._previous = {}

    def leave(self, first_process: bool) -> None:
        """End this process as the signal asks, after the state is saved.

        Args:
            first_process: whether this is the first process of a distributed run. The others end normally, so that
                Lightning does not end the first one before it is finished.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SystemExit: code 129 after SIGHUP, else 143, or the code of an earlier handler.
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
        with contextlib.suppress(OSError):  # the terminal may be gone
            _say(f"\nstopping after this step{again}")


def end_with_others(trainer: Trainer, folder: Path, grace: float = _GRACE) -> None:
    """Have the first process of a distributed training end, with a line, when one that it starts ends with an error.

    gloo reports a lost process at once; NCCL may wait for it for ever, and so do both while processes are started.
    Lightning's own watch kills the first process, which then says nothing.

    Args:
        trainer: whose ``fit`` comes next.
        folder: of the run, where the failure is noted.
        grace: seconds in which the first process may end by itself.
    """
    launcher: Any = trainer.strategy.launcher
    environment = getattr(launcher, "cluster_environment", None)
    if environment is not None and not environment.creates_processes_externally:
        threading.Thread(target=_watch_others, args=(launcher, folder, grace), daemon=True).start()


def _watch_others(launcher: Any, folder: Path, grace: float) -> None:
    # Lightning's watch begins once all processes are started. It looks into this very list every few seconds: without
    # processes in it, it ends.
    while not any(thread.name == _LIGHTNINGS_WATCH for thread in threading.enumerate()):
        time.sleep(_POLL)
    processes: list[subprocess.Popen[bytes]] = list(launcher.procs)
    watched, launcher.procs = launcher.procs, processes
    watched.clear()
    while not any(process.poll() for process in processes):
        if all(process.returncode == 0 for process in processes):
            return
        time.sleep(_POLL)
    time.sleep(grace)  # if the first process ends in this time, so does this thread
    note_failure(folder, LOST)
    for process in processes:
        process.kill()
    print(f"error: {LOST}", file=sys.stderr, flush=True)
    os._exit(EXIT_USER_ERROR)  # the main thread may wait in a collective operation


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _largest(trainer: Trainer, number: int) -> int:
    """Return the largest ``number`` of all processes."""
    return int(trainer.strategy.reduce(torch.tensor(number, device=trainer.strategy.root_device), reduce_op="max"))


@contextlib.contextmanager
def queued_again() -> Iterator[None]:
    """Requeue the SLURM job on SIGUSR1 and SIGUSR2 while this context lasts.

    During the training itself :class:`StopOnSignal` saves the state first. A handler that is there already (submitit's)
    stays. In a distributed run the first process alone requeues the job.
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
