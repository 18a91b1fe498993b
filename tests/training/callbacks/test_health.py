"""What tells the health of a long training: loss, gradient, sigmas."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jointiq.entropy_models.gaussian_mixture import bound_log_sigma, watch_log_sigmas
from jointiq.training.callbacks.health import FiniteLoss, Monitors
from jointiq.training.modules.compression import NonFiniteError


class Trainer(SimpleNamespace):
    """As much of Lightning's as the callbacks look at; ``others`` is what other processes would say."""

    def __init__(self, world_size: int = 1, others: int = 0) -> None:
        super().__init__(global_step=0, log_every_n_steps=4, world_size=world_size)
        self.strategy = SimpleNamespace(reduce=lambda value, reduce_op: max(int(value), others))


def steps(guard: FiniteLoss, trainer: Any, *losses: float) -> None:
    for loss in losses:
        trainer.global_step += 1
        guard.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)})


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(NonFiniteError, match="at step 3$"):
            steps(FiniteLoss(), Trainer(), 1.0, 2.0, bad, 1.0)
    steps(FiniteLoss(), Trainer(), *[1.0] * 9)


def test_many_processes_look_where_the_log_has_a_row() -> None:
    with pytest.raises(NonFiniteError, match="at a step from 5 to 8"):
        steps(FiniteLoss(), Trainer(world_size=2), 1.0, 1.0, 1.0, 1.0, math.nan, 1.0, 1.0, 1.0)
    with pytest.raises(NonFiniteError, match="at a step from 1 to 4"):
        steps(FiniteLoss(), Trainer(world_size=2, others=1), 1.0, 1.0, 1.0, 1.0)


def test_nothing_is_saved_after_such_a_loss() -> None:
    guard, trainer = FiniteLoss(), Trainer(world_size=2)
    steps(guard, trainer, 1.0, math.nan)
    with pytest.raises(NonFiniteError):
        guard.on_save_checkpoint(trainer, None, {})  # type: ignore[arg-type]


def test_gradient_and_sigmas_are_logged_where_the_log_has_a_row() -> None:
    logged: dict[str, float] = {}
    module: Any = torch.nn.Linear(2, 1, bias=False)
    module.log = lambda name, value, **options: logged.__setitem__(name, float(value))
    monitors, trainer = Monitors(), Trainer()
    for trainer.global_step in range(4):
        monitors.on_train_batch_start(trainer, module)
        bound_log_sigma(torch.tensor([0.11, 0.05, 1.0, 3.0]).log() + torch.tensor([-1e-6, 0, 0, 0]))
        module.weight.grad = torch.tensor([[3.0, 4.0]])
        monitors.on_before_optimizer_step(trainer, module, None)
        assert (logged == {}) == (trainer.global_step < 3)
    assert logged == {"train/grad_norm": 5.0, "train/sigma_floor": 0.5}
    bound_log_sigma(torch.zeros(3))
    assert monitors._log_sigmas == []


def test_sigmas_are_watched_only_within() -> None:
    with watch_log_sigmas() as seen:
        bound_log_sigma(torch.zeros(3))
    bound_log_sigma(torch.zeros(3))
    assert len(seen) == 1 and not seen[0].requires_grad
