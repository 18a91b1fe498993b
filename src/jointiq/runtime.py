"""Device, threads, GPUs, signals, TF32 and memory of this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING

from jointiq.errors import ConfigError, DataError, check_whole

if TYPE_CHECKING:
    import torch

#: Threads that may be asked for where there are fewer processors; very many end the process inside PyTorch.
_MAX_THREADS = 256
# Parameters of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that this machine has.

    Raises:
        ConfigError: another name, or a GPU that is not there.
    """
    # Imported late, here and below: entry points refuse a mistake without waiting for PyTorch.
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if len(present) > 1:
        present.append("cuda")
    if name not in present:
        found = "" if len(present) > 1 else "; PyTorch finds no GPU here"
        raise ConfigError("device", name, f"one of {', '.join(['auto', *present])}{found}")
    return torch.device(name)


def usable_cores() -> int:
    """How many CPU cores this process may run on; where the system does not tell, all that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 in hardware: GPUs since Ampere, CPUs with AVX512-BF16 or AMX."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    found = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def set_threads(count: int | None) -> None:
    """Limit the CPU threads of torch; None leaves its default.

    Raises:
        ConfigError: less than one thread, or more than a machine can start.
    """
    if count is None:
        return
    check_whole("threads", count, 1, max(_MAX_THREADS, os.cpu_count() or 1))
    import torch

    torch.set_num_threads(count)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """While this context lasts, SIGTERM and SIGHUP end the process as an exception does, so that it cleans up.

    A signal that is ignored (``nohup``), or that somebody else handles, stays so.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for one in ours:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


@contextlib.contextmanager
def first_interrupt_noted() -> Iterator[Callable[[], bool]]:
    """While this context lasts, the first Ctrl-C is noted and interrupts nothing; the second one does.

    Yields a function that tells whether there was one. Outside of the main thread, or where Ctrl-C is ignored, there is
    none.
    """
    noted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if noted:
            signal.default_int_handler(number, frame)
        noted = True

    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread() and callable(before)
    if in_main:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """While this context lasts, GPUs may, or may not, round the inputs of float32 products to ten bits (TF32)."""
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


@contextlib.contextmanager
def memory_failures_told() -> Iterator[None]:
    """Turn a failed allocation, on a GPU or in main memory, into one line.

    Raises:
        DataError: in place of PyTorch's and Python's errors.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        failed = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not failed:
            raise
        raise DataError("not enough memory for an image of this size; allowed: a smaller one") from error


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for the next tensor of that size, where it can be told so (glibc).

    By default it hands large blocks back to the system at once, and each new one has to be mapped page by page. On a
    CPU that was half of the time of a training step with feature maps of 100 MB. The process stays as large as it once
    was.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
