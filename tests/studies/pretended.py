"""Trainings that take no time: what a job would leave behind, with weights that are random but of the right shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jointiq.coding.load import load_model
from jointiq.models import build_model
from jointiq.runs import folder as run_folder
from jointiq.sweeps.jobs import Job, JobResult
from jointiq.training.assemble import model_config
from jointiq.training.validation import NO_FILE


class PretendedJobs:
    """Stands for :func:`jointiq.sweeps.jobs.run_jobs`; ``started`` lists the overrides of the jobs it was given, and
    ``gpus`` what they deal out.

    Args:
        fails: job number ``fails`` (counted over all calls) leaves nothing behind.
    """

    def __init__(self, fails: int | None = None) -> None:
        self.fails = fails
        self.started: list[tuple[str, ...]] = []
        self.gpus: list[str] = []

    def __call__(
        self, jobs: Sequence[Job], at_once: int = 1, gpus: Sequence[str] = (), record: Path | None = None
    ) -> list[JobResult]:
        self.gpus = list(gpus)
        results = []
        for job in jobs:
            self.started.append(job.overrides)
            failed = self.fails == len(self.started) - 1
            if not failed:
                pretend(job)
            results.append(JobResult(job, int(failed)))
        return results


def pretend(job: Job) -> None:
    """Leave what a finished run of the job leaves."""
    cfg: Any = job.cfg
    torch.manual_seed(cfg.seed)
    net = build_model(model_config(cfg)).eval()
    with torch.no_grad():
        # Not all systems have it; where it is, latents are then not all zero, and a smaller lambda has larger ones.
        if hasattr(net, "g_a") and hasattr(net.g_a, "convs"):
            net.g_a.convs[-1].weight.mul_(200 / (1 + 10 * cfg.lmbda))
    if cfg.init_from not in NO_FILE:
        trunk = load_model(cfg.init_from).state_dict()
        kept = {key: value for key, value in trunk.items() if key.startswith(("g_a.", "g_s."))}
        net.load_state_dict({**net.state_dict(), **kept})
    assert job.folder is not None
    run_folder.describe(job.folder, cfg)
    # An hour for its steps.
    (job.folder / "metrics.csv").write_text("step,steps_per_second\n3599,1\n")
    checkpoint = job.folder / run_folder.CHECKPOINT
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": net.state_dict()}, checkpoint)
    run_folder.mark_done(job.folder, cfg.trainer.max_steps)
