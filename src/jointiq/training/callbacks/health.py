"""Stop a training whose loss is not finite; log the gradient norm and the share of sigmas at their lower bound."""

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

    Reading a value from a GPU makes the CPU wait. There the loss is checked only where a row is logged and before a
    checkpoint is saved; in between the GPU keeps a flag.

    Raises:
        NonFiniteError: the loss was not finite. In a distributed run all processes raise it after the same step.
    """

    def __init__(self) -> None:
        self._not_finite: Tensor | None = None
        self._checked_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear the flag."""
        self._not_finite, self._checked_at = None, trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        """Set the flag if the loss is not finite; check it where a row is logged, or where that costs nothing."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        not_finite = ~torch.isfinite(loss.detach())
        self._not_finite = not_finite if self._not_finite is None else self._not_finite | not_finite
        is_free = loss.device.type == "cpu" and trainer.world_size == 1
        if is_free or trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check before a state is saved."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._not_finite is None:
            return
        not_finite = bool(trainer.strategy.reduce(self._not_finite.int(), reduce_op="max"))
        first, last = self._checked_at + 1, trainer.global_step
        self._not_finite, self._checked_at = None, last
        if not_finite:
            where = f"at step {last}" if first >= last else f"at a step from {first} to {last}"
            raise NonFiniteError(f"the loss is not finite {where}")


class Monitors(Callback):
    """Log ``train/grad_norm`` and ``train/sigma_floor`` in every logged row.

    The first is the norm of the gradient of all parameters before clipping, in the unit of the loss. The second is the
    share of the Gaussians' sigmas, 0 to 1, at or below their lower bound of 0.11. There a latent costs (next to) no
    bits, and its sigma hardly learns any more.
    """

    def __init__(self) -> None:
        self._watch = contextlib.ExitStack()
        self._log_sigmas: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Record the sigmas of a step that is logged."""
        if _is_logged(trainer, trainer.global_step + 1):
            self._log_sigmas = self._watch.enter_context(watch_log_sigmas())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Log both values."""
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
        """Stop recording."""
        self._watch.close()


def _is_logged(trainer: Trainer, step: int) -> bool:
    return step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
