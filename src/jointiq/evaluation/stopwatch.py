"""Measure time and memory of this process, and the share of the functions that it calls."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Moment:
    """A reading of both clocks, or the difference of two, in seconds.

    Attributes:
        wall: wall-clock time.
        cpu: processor time of this process; on one thread of an idle machine the same as ``wall``.
    """

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Moment:
        """Read the clocks."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Moment) -> Moment:
        return Moment(self.wall - other.wall, self.cpu - other.cpu)


class Sections:
    """Measure how much of a growing counter each section takes, without sections called inside it.

    The sections therefore add up.

    Args:
        counter: returns the counter: a clock, or a count of operations. Default: processor seconds of this process.

    Attributes:
        spent: units of the counter by section.
        calls: calls of the functions of each section.
    """

    def __init__(self, counter: Callable[[], float] = time.process_time) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._counter = counter
        self._inner = [0.0]

    def measure(self, section: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` wrapped so that its calls count for ``section``."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            began = self._counter()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                whole = self._counter() - began
                self.spent[section] += whole - self._inner.pop()
                self.calls[section] += 1
                self._inner[-1] += whole

        return measured


def resident_bytes() -> int:
    """Return the memory of this process in bytes."""
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """Return the peak memory of this process in bytes since its start or :func:`forget_peak`."""
    # A fallback only: ru_maxrss of a child process starts at its parent's peak.
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Reset the peak memory, where the system can; otherwise the peak stays an upper bound."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int | None:
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return 1024 * int(line.split()[1])
    return None


def processor_name() -> str:
    """Return the model name of the processor."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_text(device: str) -> str:
    """Return a device's kind and name, and for a CPU the threads of a process."""
    import torch  # late: command lines do not need it

    if device.startswith("cuda"):
        return f"GPU, {torch.cuda.get_device_name(device)}"
    threads = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
    return f"CPU, {processor_name()}, threads: {threads}"
