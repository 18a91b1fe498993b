"""Batches prepared by worker processes that leave signals to the training.

``timeout``, ``scancel``, systemd and a terminal's Ctrl-C send their signal to all processes of a training. PyTorch's
workers die of it, and the training with them, before it has saved.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any, TypeVar

from torch.utils.data import DataLoader

T_co = TypeVar("T_co", covariant=True)

#: Signals that are the training's: it decides what becomes of the run, and its workers end with it.
_OF_THE_TRAINING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


class Loader(DataLoader[T_co]):
    """PyTorch's loader; no worker meets a signal before :func:`leave_signals` (its ``worker_init_fn``) has run."""

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_TRAINING)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals(_worker: int) -> None:
    """Ignore all signals of the training in this worker, but for the SIGTERM by which the training ends it."""
    for number in _OF_THE_TRAINING - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    # SIGTERM stays blocked, because only who waits for a signal is told which process sent it.
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(training: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
        pass
    os._exit(0)
