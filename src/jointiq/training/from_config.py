"""Groups of a composed ``train`` config as what they stand for; nothing here waits for PyTorch."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from jointiq.training.schedules import Schedule, build_schedule


def model_config(cfg: DictConfig) -> dict[str, Any]:
    """What :func:`jointiq.models.build_model` reads: the model's group, with the enhancer's (or None) inside it."""
    config: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    enhancer: Any = OmegaConf.to_container(cfg.enhancer, resolve=True)
    return {**config, "enhancer": enhancer if enhancer["name"] is not None else None}


def schedule(cfg: DictConfig) -> Schedule:
    """Factor of the learning rate over the run's progress: ``optim.schedule`` with its settings."""
    optim = cfg.optim
    return build_schedule(
        optim.schedule,
        cfg.trainer.max_steps,
        optim.halvings,
        optim.decay_steps,
        optim.decay_share,
        optim.final_share,
        optim.pretrain_share,
        optim.pretrain_factor,
    )
