"""Compile the network with ``torch.compile`` while it trains (``optim.compile``)."""

from __future__ import annotations

import torch
from lightning import Callback, LightningModule, Trainer


class Compile(Callback):
    """Compile ``module.net`` in place, so that the names of its weights, and checkpoints, stay the same.

    Validation runs uncompiled: its images have many sizes, and each would be compiled anew.

    Args:
        mode: one of :data:`jointiq.training.validation.COMPILE_MODES`, but not False.
        backend: of ``torch.compile``.
    """

    def __init__(self, mode: bool | str, backend: str = "inductor") -> None:
        self.mode = None if mode is True else mode
        self.backend = backend

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile for the one size of the patches; the compiler runs at the first step."""
        pl_module.net.compile(mode=self.mode, backend=self.backend, dynamic=False)  # type: ignore[union-attr]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run uncompiled."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run compiled again."""
        torch.compiler.set_stance("default")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the default, also after an error in a validation."""
        torch.compiler.set_stance("default")
