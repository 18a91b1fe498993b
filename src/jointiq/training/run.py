"""One training from its composed configuration to its ``done.json``: what ``python -m src.train`` starts."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from jointiq.command_line import command
from jointiq.data import build_data
from jointiq.data.latents import LatentData
from jointiq.errors import UserError
from jointiq.models import build_model
from jointiq.runs import folder as run_folder
from jointiq.runs import name as run_name
from jointiq.runs import resume
from jointiq.runs.lock import RunLock
from jointiq.runtime import set_threads
from jointiq.tracking import loggers
from jointiq.training.assemble import build_trainer, one_line_errors, start_loggers
from jointiq.training.callbacks.checkpoint_io import check_same_averaging, check_same_model, read_training_checkpoint
from jointiq.training.callbacks.status_file import note_failure
from jointiq.training.callbacks.stop import StopOnSignal
from jointiq.training.from_config import model_config, schedule
from jointiq.training.memory_format import set_training_layout
from jointiq.training.modules.compression import CompressionModule, EnhancementModule
from jointiq.training.modules.entropy import EntropyModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.start.initialise import initialise
from jointiq.training.start.pca import PIXELS, has_the_transforms, start_from_components
from jointiq.training.values import AUTO, NO_FILE, PCA

#: What trains, by ``stage.trains``.
MODULES = {"all": CompressionModule, "enhancer": EnhancementModule, "entropy": EntropyModule}


def quiet() -> None:
    """Silence what Lightning says about hardware, loaders and intervals: shown otherwise, or on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        # Errors go to stderr, and not to where Hydra's log goes.
        logger.propagate = False
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def train(cfg: DictConfig) -> Path:
    """Train what ``cfg`` describes, or go on with it.

    Args:
        cfg: the composed ``train`` config of a single stage, which :mod:`jointiq.training.validation` has checked.

    Returns:
        The run's folder; it holds ``checkpoints/last.ckpt``.

    Raises:
        UserError: a value, image or checkpoint that cannot be used, or a training that diverged.
        KeyboardInterrupt: stopped with Ctrl-C; the state is saved, unless Ctrl-C was typed twice or before the first
            step.
    """
    folder = run_name.run_folder(cfg)
    lock = RunLock(folder)
    try:
        if _is_first_process() and folder.is_dir():
            lock.acquire()
        _go_on(cfg, folder, lock)
    finally:
        lock.release()
    return folder


def _go_on(cfg: DictConfig, folder: Path, lock: RunLock) -> None:
    start = resume.find_start(folder, cfg)
    for warning in start.warnings:
        _say(warning)
    if start.finished:
        _say(f"finished before: {folder} (resume=never trains it again)")
    else:
        _train(cfg, folder, start.checkpoint, lock)


def _train(cfg: DictConfig, folder: Path, start: str | None, lock: RunLock) -> None:
    set_threads(cfg.get("threads"))
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    images = build_data(cfg.data, seed=cfg.seed)
    images.setup("fit")
    net = build_model(model_config(cfg))
    first_step, taken = 0, None
    if start is not None:
        checkpoint = read_training_checkpoint(start)
        check_same_model(checkpoint, net.config, start)
        check_same_averaging(checkpoint, cfg.optim.ema_decay is not None, start)
        first_step = checkpoint["global_step"]
    elif cfg.init_from == PCA or cfg.init_from == AUTO and has_the_transforms(net):
        taken = start_from_components(net, images.first_patches(PIXELS), cfg.lmbda)
    elif cfg.init_from not in NO_FILE:
        taken = initialise(net, cfg.init_from, cfg.stage.get("takes", "model"))
    module = MODULES[cfg.stage.trains](
        net,
        RateDistortionLoss(cfg.lmbda, cfg.distortion.name, cfg.distortion.rate_unit, cfg.distortion.rate_positions),
        schedule(cfg),
        lr=cfg.optim.lr,
        aux_lr=cfg.optim.aux_lr,
        clip_norm=cfg.optim.clip_norm,
        crop=cfg.stage.crop,
        name=cfg.experiment_name,
    )
    data = LatentData(images, net, cfg.stage.copies, cfg.paths.latents) if cfg.stage.trains == "entropy" else images

    cfg.paths.run_dir = str(folder)
    stop = StopOnSignal()
    trainer = build_trainer(cfg, stop)
    set_training_layout(net, trainer.strategy.root_device, cfg.trainer.precision)
    if _is_first_process() and not lock.is_held:
        # A command that cannot run leaves no folder, so a new one is locked only here.
        lock.acquire()
        if resume.find_start(folder, cfg) != resume.Start(start):
            # Another process has trained the same meanwhile.
            _go_on(cfg, folder, lock)
            return
    _open_folder(cfg, folder, start, lock)
    _announce(cfg, folder, net, first_step, taken)
    last = folder / run_folder.CHECKPOINT
    try:
        trainer.loggers = list(start_loggers(cfg, first_step))
        with one_line_errors(last):
            trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
            if not stop.stopped and module.validated_at != trainer.global_step:
                trainer.validate(module, datamodule=data, verbose=False)
    except Exception as error:
        _note_failure(folder, error)
        raise
    finally:
        loggers.finish_wandb()
    _say(f"{'stopped' if stop.stopped else 'trained'} at step {trainer.global_step}: {last}")
    if stop.stopped:
        _say("the same command goes on")
        stop.leave(_is_first_process())
        return
    _finish(folder, trainer.global_step)


@rank_zero_only
def _open_folder(cfg: DictConfig, folder: Path, start: str | None, lock: RunLock) -> None:
    while (moved := run_folder.prepare(folder, cfg, start)) is not None:
        _say(f"an earlier run was moved to {moved}")
        # The lock has moved too, and another process may have trained at the folder's path since.
        lock.acquire()


@rank_zero_only
def _announce(cfg: DictConfig, folder: Path, net: Any, first_step: int, taken: str | None) -> None:
    parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    start = f", continuing after step {first_step}" if first_step else ""
    if cfg.data.name == "sample":
        _say(
            f"scale={cfg.scale.name} on data=sample, a handful of photographs for trying things out; your images, by "
            "default at scale=paper: data=folder data.train_dir=DIR data.val_dir=DIR"
        )
    _say(f"{cfg.experiment_name}: lmbda {cfg.lmbda:g}, {parameters:.2f} million parameters{start}, run folder {folder}")
    if taken is not None:
        _say(f"init_from: {taken}")


@rank_zero_only
def _finish(folder: Path, step: int) -> None:
    run_folder.mark_done(folder, step)
    _say(f"again, from its own configuration: {command(rerun=folder)}")


@rank_zero_only
def _note_failure(folder: Path, error: Exception) -> None:
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    note_failure(folder, f"{kind}{' '.join(str(error).split())}")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _is_first_process() -> bool:
    return bool(getattr(rank_zero_only, "rank", 0) == 0)
