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
_BLOCKED_IN_WORKERS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


class Loader(DataLoader[T_co]):
    """PyTorch's loader, whose workers start with those signals blocked.

    Its ``worker_init_fn`` is :func:`exit_with_training`.
    """

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED_IN_WORKERS)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_with_training(_worker: int) -> None:
    """Exit when the training process, and no other, sends SIGTERM."""
    # In a thread: only who waits for a signal is told which process sent it.
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(training: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
        pass
    os._exit(0)
