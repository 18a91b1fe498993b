"""Where and how parallel the networks run."""

from __future__ import annotations

import torch

from src.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that this machine has.

    Raises:
        ConfigError: another name, or a GPU that is not there.
    """
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
    torch.set_num_threads(count)
