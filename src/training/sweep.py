"""A sweep (``-m``): every job is a process of its own.

Lightning starts the extra processes of a distributed job by repeating the command line, sweep and all. One process a
job keeps that from happening, and keeps a job that fails from taking the others with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.conf import HydraConf
from hydra.types import RunMode

_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class JobResult:
    """One finished job: what it was, and the exit code of its process."""

    overrides: tuple[str, ...]
    code: int

    def line(self) -> str:
        """``done`` or ``failed`` with the job's overrides."""
        state = "done" if self.code == 0 else f"failed (exit code {self.code})"
        return f"{state:24s} {' '.join(self.overrides)}"


def starts_processes(hydra: HydraConf) -> bool:
    """True for the jobs of a sweep that Hydra runs one after the other in this process.

    Other launchers (submitit, Ray) give each job a process already.
    """
    return hydra.mode == RunMode.MULTIRUN and hydra.launcher.get("_target_") == _LAUNCHER


def run_job(hydra: HydraConf) -> JobResult:
    """Run one job of a sweep in a process of its own and wait for it.

    Ctrl-C reaches that process too; it is waited for while it saves, then KeyboardInterrupt goes on.
    """
    overrides = tuple(hydra.overrides.task)
    print(f"\n[{hydra.job.num + 1}] {' '.join(overrides)}", flush=True)
    return JobResult(overrides, run_process(overrides, config_dirs(hydra), {**group(hydra), **os.environ}))


def run_process(
    overrides: Sequence[str], folders: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> int:
    """Exit code of ``python -m src.train`` with ``overrides``.

    Args:
        folders: further config folders.
        environment: all environment variables of the process; None: those of this one.
    """
    command = [sys.executable, "-m", "src.train"]
    for folder in folders:
        command += ["--config-dir", folder]
    process = subprocess.Popen([*command, *overrides], env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def config_dirs(hydra: HydraConf) -> list[str]:
    """Config folders that were given on the command line."""
    return [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]


def group(hydra: HydraConf) -> dict[str, str]:
    """W&B's environment variable that puts the runs of a sweep's jobs into one group, named by the sweep's folder."""
    return {"WANDB_RUN_GROUP": Path(hydra.sweep.dir).name} if hydra.mode == RunMode.MULTIRUN else {}


def summary(results: list[JobResult]) -> str:
    """One line a job."""
    failed = sum(result.code != 0 for result in results)
    head = f"sweep: {len(results)} jobs, {failed} failed"
    return "\n".join([head, *(f"  {result.line()}" for result in results)])
