"""A running mean of the weights (``optim.ema_decay``)."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightMean(WeightAveraging):
    """Lightning's running mean of the weights, mean = decay * mean + (1 - decay) * weights after each step.

    Checkpoints hold the mean in ``state_dict`` and what a continued training needs beside it; validation sees the mean.
    To be placed before ``LastCheckpoint``, which is to save the mean with this step in it.
    """

    def __init__(self, decay: float) -> None:
        # The multi-tensor form interpolates, so that frozen weights stay what they are to the bit.
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the copy on the device of the training; the module itself is moved there later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module as trained, not averaged: its checkpoint is to be one that can be continued."""
