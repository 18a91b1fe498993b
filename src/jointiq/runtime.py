"""Where and how parallel the networks run."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING

from jointiq.errors import ConfigError

if TYPE_CHECKING:
    import torch

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
        raise ConfigError("device", name, ["auto", *present])
    return torch.device(name)


def set_threads(count: int | None) -> None:
    """Limit the CPU threads of torch; None leaves its default.

    Raises:
        ConfigError: less than one thread.
    """
    if count is None:
        return
    if count < 1:
        raise ConfigError("threads", count, "a whole number from 1 up")
    import torch

    torch.set_num_threads(count)


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
