"""The health of a training: a guard against NaN, the gradient norm, the share of sigmas at their floor."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from jointiq.entropy_models.gaussian_mixture import SIGMA_MIN, watch_log_sigmas
from jointiq.training.modules.compression import NonFiniteError


class FiniteLoss(Callback):
    """Stop a training whose loss is NaN or infinite, before a checkpoint of it is saved.

    On a GPU, looking at the loss waits for the device, so it is looked at only where the log has a row and where a
    checkpoint is saved; the device keeps count in between.

    Raises:
        NonFiniteError: the loss was not finite. In a distributed run all processes raise it after the same step.
    """

    def __init__(self) -> None:
        self._wrong: Tensor | None = None
        self._looked_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._wrong, self._looked_at = None, trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        """Count, and look where it costs nothing."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        wrong = ~torch.isfinite(loss.detach())
        self._wrong = wrong if self._wrong is None else self._wrong | wrong
        is_free = loss.device.type == "cpu" and trainer.world_size == 1
        if is_free or trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look before a state is kept."""
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        if self._wrong is None:
            return
        wrong = bool(trainer.strategy.reduce(self._wrong.int(), reduce_op="max"))
        first, last = self._looked_at + 1, trainer.global_step
        self._wrong, self._looked_at = None, last
        if wrong:
            where = f"at step {last}" if first >= last else f"at a step from {first} to {last}"
            raise NonFiniteError(f"the loss is not finite {where}")


class Monitors(Callback):
    """Log ``train/grad_norm`` and ``train/sigma_floor`` where the log has a row.

    The first is the norm of the gradient of all parameters before it is clipped, in the unit of the loss. The second is
    the share of the Gaussians' sigmas, 0 to 1, that lie at or below their lower bound of 0.11: there a latent costs
    (next to) nothing and its sigma hardly learns any more.
    """

    def __init__(self) -> None:
        self._watch = contextlib.ExitStack()
        self._log_sigmas: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Watch the sigmas of a step that is logged."""
        if _is_logged(trainer, trainer.global_step + 1):
            self._log_sigmas = self._watch.enter_context(watch_log_sigmas())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Log both."""
        self._watch.close()
        if not _is_logged(trainer, trainer.global_step + 1):
            return
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))
        if self._log_sigmas:
            low = sum((values <= math.log(SIGMA_MIN)).sum() for values in self._log_sigmas)
            pl_module.log("train/sigma_floor", low / sum(map(Tensor.numel, self._log_sigmas)), sync_dist=True)
            self._log_sigmas = []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Watch no more."""
        self._watch.close()


def _is_logged(trainer: Trainer, step: int) -> bool:
    return step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
