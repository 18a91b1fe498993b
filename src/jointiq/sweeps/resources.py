"""Resources of a sweep's jobs: how many run at a time, the GPUs of each, the cores of each process."""

from __future__ import annotations

import os
from collections.abc import Mapping

from omegaconf import DictConfig

from jointiq.errors import ConfigError
from jointiq.runtime import usable_cores, visible_gpus

#: Cores of a training on a GPU with ``data.num_workers`` null, which starts as many loaders as there are cores.
_CORES_BESIDE_A_GPU = 8


def places(cfg: DictConfig, environment: Mapping[str, str] = os.environ) -> tuple[int, list[str]]:
    """Return how many jobs a sweep runs at a time, and on which GPUs.

    The number is ``sweep.jobs`` where that is given. Otherwise, on GPUs, it is ``sweep.per_gpu`` for each set of
    ``trainer.devices`` GPUs; on CPUs, as many as the cores suffice for at ``threads`` for each of ``trainer.devices``,
    or one if ``threads`` is null.

    Args:
        cfg: the config of the sweep's jobs.
        environment: environment variables; CUDA_VISIBLE_DEVICES limits the GPUs.

    Returns:
        The number of places, and the values of CUDA_VISIBLE_DEVICES that the places use in turn (empty: unchanged).

    Raises:
        ConfigError: a number below 1, or more devices for a job than there are GPUs.
    """
    for key in ("jobs", "per_gpu"):
        value = cfg.sweep[key]
        if value is None and key == "jobs":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            allowed = "a whole number from 1 up" + (", or null" if key == "jobs" else "")
            raise ConfigError(f"sweep.{key}", value, allowed)
    gpus = visible_gpus(environment) if uses_gpus(cfg) else []
    devices = cfg.trainer.devices
    if not isinstance(devices, int) or devices < 1:
        return cfg.sweep.jobs or 1, []
    if not gpus:
        return cfg.sweep.jobs or _jobs_on_cpu(cfg, devices), []
    if devices > len(gpus):
        raise ConfigError("trainer.devices", devices, f"1 to {len(gpus)}, the GPUs of this machine")
    sets = [",".join(gpus[first : first + devices]) for first in range(0, len(gpus) - devices + 1, devices)]
    return cfg.sweep.jobs or cfg.sweep.per_gpu * len(sets), sets


def _jobs_on_cpu(cfg: DictConfig, devices: int) -> int:
    threads = _threads(cfg)
    return 1 if threads is None else max(usable_cores() // (threads * devices), 1)


def _threads(cfg: DictConfig) -> int | None:
    """Return ``threads``; None: all cores, or a wrong value, which every job refuses."""
    threads = cfg.get("threads")
    return threads if isinstance(threads, int) and not isinstance(threads, bool) and threads > 0 else None


def uses_gpus(cfg: DictConfig) -> bool:
    """Return whether a training uses GPUs where there are any."""
    return cfg.trainer.accelerator in ("auto", "gpu", "cuda")


def cores_of_a_process(cfg: DictConfig, on_gpu: bool) -> int | None:
    """Return how many cores each process of a training can use, data loaders included; None: all."""
    workers = cfg.data.num_workers
    workers = workers if isinstance(workers, int) else None
    if on_gpu:
        return _CORES_BESIDE_A_GPU if workers is None else 1 + workers
    threads = _threads(cfg)
    return None if threads is None else threads + (workers or 0)
