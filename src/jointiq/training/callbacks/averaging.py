"""Exponential moving average of the weights in training (``optim.ema_decay``)."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightMean(WeightAveraging):
    """Average the weights: mean = decay * mean + (1 - decay) * weights after each step.

    Validation uses the mean. A checkpoint holds the mean in ``state_dict`` and, beside it, the weights that a continued
    training needs. Place it before ``LastCheckpoint``, so that the saved mean includes the current step.
    """

    def __init__(self, decay: float) -> None:
        # The multi-tensor form interpolates, so that frozen weights stay the same to the bit.
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the mean on the device of the training, to which the module itself is moved later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the trained weights in the module, not the mean, so that training can continue from its checkpoint."""
