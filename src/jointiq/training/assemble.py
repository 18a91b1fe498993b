"""Build a training from its composed config: LightningModule, data module, Trainer, callbacks and loggers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import hydra
import lightning
import torch
from hydra.errors import InstantiationException
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from jointiq.bitstream.container import DEFAULT_QUALITY
from jointiq.data import build_data
from jointiq.data.latents import LatentData
from jointiq.errors import UserError
from jointiq.layers.gains import log_spaced
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec
from jointiq.runs.resume import Start
from jointiq.runtime import set_threads
from jointiq.training.callbacks.averaging import WeightMean
from jointiq.training.callbacks.checkpoint_io import AtomicCheckpointIO, check_same_averaging, check_same_model
from jointiq.training.callbacks.compiled import Compile
from jointiq.training.callbacks.health import FiniteLoss
from jointiq.training.callbacks.step_seed import StepSeed
from jointiq.training.callbacks.stop import StopOnSignal
from jointiq.training.csv_log import CsvLog
from jointiq.training.modules.compression import CompressionModule, EnhancementModule, optimizer_of
from jointiq.training.modules.entropy import EntropyModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import Schedule, build_schedule
from jointiq.training.start.initialise import initialise
from jointiq.training.start.pca import PIXELS, has_the_transforms, start_from_components
from jointiq.training.validation import AUTO, NO_FILE, PCA

#: The LightningModule of each value of ``stage.trains``.
MODULES = {"all": CompressionModule, "enhancer": EnhancementModule, "entropy": EntropyModule}


@dataclass(frozen=True)
class Training:
    """The parts of a training.

    Attributes:
        module: the network with its loss and optimizer.
        data: patches and validation images.
        trainer: Lightning's.
        stop: the callback that ends the training on a signal.
        first_step: optimizer steps that are done already.
        taken: what ``init_from`` loaded or computed, as a line to show; None: nothing.
    """

    module: CompressionModule
    data: lightning.LightningDataModule
    trainer: lightning.Trainer
    stop: StopOnSignal
    first_step: int
    taken: str | None


def build_training(cfg: DictConfig, start: Start) -> Training:
    """Build the training that ``cfg`` describes, to begin at ``start``.

    Args:
        cfg: the composed config; ``paths.run_dir`` is the run's folder.

    Raises:
        UserError: a value, image or checkpoint that cannot be used.
    """
    set_threads(cfg.get("threads"))
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    images = build_data(cfg.data, seed=cfg.seed)
    images.setup("fit")
    net = build_model(model_config(cfg))
    taken = None
    state = start.read()
    if start.checkpoint is not None and state is not None:
        check_same_model(state, net.config, start.checkpoint)
        check_same_averaging(state, cfg.optim.ema_decay is not None, start.checkpoint)
    elif cfg.init_from == PCA or (cfg.init_from == AUTO and has_the_transforms(net)):
        taken = start_from_components(net, images.first_patches(PIXELS), middle_lambda(cfg, net))
    elif cfg.init_from not in NO_FILE:
        patches = partial(images.first_patches, PIXELS)
        taken = initialise(net, cfg.init_from, cfg.stage.get("takes", "model"), patches)
    module = MODULES[cfg.stage.trains](
        net,
        loss(cfg),
        schedule(cfg),
        lr=cfg.optim.lr,
        aux_lr=cfg.optim.aux_lr,
        clip_norm=cfg.optim.clip_norm,
        crop=cfg.stage.crop,
        name=cfg.experiment_name,
        optimizer=optimizer_of(OmegaConf.to_container(cfg.optim, resolve=True)),  # type: ignore[arg-type]
    )
    data = LatentData(images, net, cfg.stage.copies, cfg.paths.latents) if cfg.stage.trains == "entropy" else images
    stop = StopOnSignal()
    read = {} if start.checkpoint is None or state is None else {start.checkpoint: state}
    trainer = build_trainer(cfg, stop, AtomicCheckpointIO(read))
    set_training_layout(net, trainer.strategy.root_device, cfg.trainer.precision)
    return Training(module, data, trainer, stop, state["global_step"] if state else 0, taken)


def loss(cfg: DictConfig) -> RateDistortionLoss:
    """Return the loss of ``cfg.distortion`` at ``cfg.lmbda``, or over ``lmbda_range`` for a model of all rates."""
    distortion = cfg.distortion
    return RateDistortionLoss(
        cfg.lmbda,
        distortion.name,
        distortion.rate_unit,
        distortion.rate_positions,
        tuple(distortion.lmbda_range),
        distortion.balance,
    )


def middle_lambda(cfg: DictConfig, net: LearnedCodec) -> float:
    """Return the lambda that the initial weights are made for; of a model of all rates that of its default quality."""
    return cfg.lmbda if net.quality is None else log_spaced(cfg.distortion.lmbda_range, DEFAULT_QUALITY)


def model_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the argument of :func:`jointiq.models.build_model`: the group ``model`` with the enhancer's (or None)."""
    config: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    enhancer: Any = OmegaConf.to_container(cfg.enhancer, resolve=True)
    return {**config, "enhancer": enhancer if enhancer["name"] is not None else None}


def schedule(cfg: DictConfig) -> Schedule:
    """Return ``optim.schedule`` with its settings."""
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


def set_training_layout(net: nn.Module, device: torch.device, precision: str) -> None:
    """Set the memory layout of the weights of ``net``, and so of its feature maps, for training on ``device``.

    Networks are built in the channels-last layout, the fastest on tensor cores, in bfloat16 and for inference on CPUs.
    On a CPU in float32, the gradients of large convolutions are most of a training step, and they are a quarter faster
    in the contiguous layout.

    Args:
        precision: ``trainer.precision``, as Lightning names it.
    """
    if device.type == "cpu" and precision.startswith("32"):
        net.to(memory_format=torch.contiguous_format)


def build_trainer(cfg: DictConfig, stop: StopOnSignal, checkpoint_io: AtomicCheckpointIO) -> lightning.Trainer:
    """Build Lightning's trainer with our callbacks and the loggers of ``cfg.logger``.

    Raises:
        UserError: an argument that Lightning, a callback or a logger refuses.
    """
    arguments: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    arguments["val_check_interval"] = min(arguments["val_check_interval"], arguments["max_steps"])
    callbacks = [_instantiate("callbacks", callback) for callback in cfg.callbacks.values()]
    loggers = build_loggers(cfg)
    if cfg.optim.ema_decay is not None:
        callbacks.insert(0, WeightMean(cfg.optim.ema_decay))
    if cfg.optim.get("compile"):
        callbacks.append(Compile(cfg.optim.compile))
    # StopOnSignal requeues SLURM's jobs; Lightning's own way would save a checkpoint elsewhere.
    cluster = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    try:
        return lightning.Trainer(
            **arguments,
            max_epochs=-1,
            # Validation intervals are in steps, because the data have no epochs.
            check_val_every_n_epoch=None,
            # The data module splits the batches over the processes itself.
            use_distributed_sampler=False,
            # Networks cache tables for an image size; made in inference mode, training could not use them.
            inference_mode=False,
            num_sanity_val_steps=0,
            callbacks=[StepSeed(cfg.seed), FiniteLoss(), stop, *callbacks],
            logger=loggers,
            plugins=[checkpoint_io, *cluster],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}; allowed: see conf/trainer") from error


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """Build the loggers of ``cfg.logger``.

    Raises:
        UserError: a value that one refuses.
    """
    return [_instantiate("logger", logger) for logger in cfg.logger.values()]


def start_logs(cfg: DictConfig, loggers: Sequence[Logger], first_step: int) -> None:
    """Log the resolved config; keep the CSV log's rows of the first ``first_step`` steps and drop later ones."""
    resolved: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for logger in loggers:
        if isinstance(logger, CsvLog):
            logger.keep_until(first_step)
        logger.log_hyperparams(resolved)


def end_logs(loggers: Sequence[Logger]) -> None:
    """Close the loggers that stay open after a training (those with a method ``close``)."""
    for logger in loggers:
        if callable(close := getattr(logger, "close", None)):
            close()


def _instantiate(group: str, settings: DictConfig) -> Any:
    try:
        return hydra.utils.instantiate(settings)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{group}: {' '.join(str(error).split())}") from error
