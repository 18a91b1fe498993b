"""Workers go on whatever signals they are sent, unless the training itself ends them."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from jointiq.data.loader import Loader, exit_with_training


class Pids(Dataset[Tensor]):
    """The process that prepared an item."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(os.getpid())


def loader() -> Loader[Tensor]:
    return Loader(Pids(), batch_size=1, num_workers=2, persistent_workers=True, worker_init_fn=exit_with_training)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2"])
def test_workers_ignore_the_signals_of_others(name: str) -> None:
    batches = iter(loader())
    workers = {int(next(batches)) for _ in range(4)}
    assert len(workers) == 2 and os.getpid() not in workers
    subprocess.run(["kill", f"-{name}", *map(str, workers)], check=True)
    assert {int(batch) for batch in batches} == workers


def test_the_training_ends_its_workers() -> None:
    batches = iter(loader())
    next(batches)
    for worker in batches._workers:
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0


def test_signals_to_the_training_are_blocked_only_while_workers_start() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    next(iter(loader()))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
