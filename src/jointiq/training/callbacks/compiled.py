"""``optim.compile``: the network through ``torch.compile`` while it trains."""

from __future__ import annotations

import torch
from lightning import Callback, LightningModule, Trainer


class Compile(Callback):
    """Compile ``module.net``, in place: names of weights and checkpoints stay what they are.

    Validation images have sizes of their own, each of which would be compiled for, so validation runs uncompiled.

    Args:
        mode: one of :data:`jointiq.training.validation.COMPILE_MODES`, but not False.
        backend: the compiler.
    """

    def __init__(self, mode: bool | str, backend: str = "inductor") -> None:
        self.mode = None if mode is True else mode
        self.backend = backend

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile; the work itself is done at the first step. Patches have one size, whose tables are constants."""
        pl_module.net.compile(mode=self.mode, backend=self.backend, dynamic=False)  # type: ignore[union-attr]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the compiled code aside."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it up again."""
        torch.compiler.set_stance("default")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing switched."""
        torch.compiler.set_stance("default")
