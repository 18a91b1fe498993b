"""Independent jobs in worker processes, one CPU thread each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

from jointiq.errors import ConfigError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def results(run: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int) -> Iterator[_Result]:
    """Yield ``run(job)`` of every job, as they come; with one worker everything stays in this process.

    ``run`` is a function of a module, and it keeps its errors to itself: an exception ends all jobs.
    """
    if workers == 1 or len(jobs) < 2:
        yield from map(run, jobs)
        return
    # spawn: a forked PyTorch may hang.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_one_thread)
    try:
        for future in as_completed([pool.submit(run, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_count(value: Any) -> int:
    """The value of a key ``workers``: a whole number from 1 up, or null for one worker per CPU core.

    Raises:
        ConfigError: neither.
    """
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("workers", value, "null or a whole number from 1 up")
    return value


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
