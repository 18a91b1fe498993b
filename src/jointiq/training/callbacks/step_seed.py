"""Seed every training step from the run's seed, the step and the process.

No state of a random generator has to be saved: a continued training draws the numbers that it would have drawn. The
processes of a distributed run draw different noise, as the images of one batch do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seed torch's generators, of the CPU and of the GPU, before every training step.

    Args:
        seed: the run's.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Seed for the step that begins."""
        torch.manual_seed(step_seed(self.seed, trainer.global_step, trainer.global_rank))


def step_seed(seed: int, step: int, process: int) -> int:
    """Return the seed of a step in a process, 0 to 2^63 - 1."""
    # The 1 keeps these draws apart from those of the patches, which are seeded by (seed, number).
    (value,) = np.random.SeedSequence((seed, step, process, 1)).generate_state(1, np.uint64)
    return int(value >> np.uint64(1))
