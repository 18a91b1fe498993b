"""Train a model: ``python -m src.train +experiment=NAME [key=value ...]``; ``--help`` lists what there is."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import lightning
import torch
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from src.data import build_data
from src.errors import UserError, run_cli
from src.models import build_model
from src.runtime import keep_freed_memory
from src.training import loggers, resolvers, resume, run_folder, run_name, stages, sweep
from src.training.assemble import build_trainer, one_line_errors, start_loggers
from src.training.checkpoint_io import check_same_averaging, check_same_model, read_training_checkpoint
from src.training.command_line import command
from src.training.compression_module import CompressionModule, EnhancementModule
from src.training.entropy_module import EntropyModule
from src.training.initialise import initialise
from src.training.latent_data import LatentData
from src.training.layout import set_training_layout
from src.training.losses import RateDistortionLoss
from src.training.pca_start import PIXELS, start_from_components
from src.training.processes import end_with_parent
from src.training.rerun import again
from src.training.run_lock import RunLock
from src.training.schedules import build_schedule
from src.training.status_file import note_failure
from src.training.stop import StopOnSignal
from src.training.validation import PCA, refuse_long_trial, validate

CONFIGS = Path(__file__).resolve().parents[1] / "conf"

#: What trains, by ``stage.trains``.
MODULES = {"all": CompressionModule, "enhancer": EnhancementModule, "entropy": EntropyModule}

resolvers.register()


def train(cfg: DictConfig) -> Path:
    """Train what ``cfg`` (the composed ``train`` config) describes.

    Returns:
        The run's folder; it holds ``checkpoints/last.ckpt``.

    Raises:
        UserError: a value, image or checkpoint that cannot be used, or a training that diverged.
        KeyboardInterrupt: stopped with Ctrl-C; the state is saved, unless Ctrl-C was typed twice or before the first
            step.
    """
    validate(cfg)
    refuse_long_trial(cfg)
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
    elif cfg.init_from == PCA:
        taken = start_from_components(net, images.first_patches(PIXELS), cfg.lmbda)
    elif cfg.init_from is not None:
        taken = initialise(net, cfg.init_from, cfg.stage.get("takes", "model"))
    module = MODULES[cfg.stage.trains](
        net,
        RateDistortionLoss(cfg.lmbda, cfg.distortion.name, cfg.distortion.rate_unit, cfg.distortion.rate_positions),
        _schedule(cfg),
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


def model_config(cfg: DictConfig) -> dict[str, Any]:
    """What :func:`src.models.build_model` reads: the model's group, with the enhancer's (or None) inside it."""
    config: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    enhancer: Any = OmegaConf.to_container(cfg.enhancer, resolve=True)
    return {**config, "enhancer": enhancer if enhancer["name"] is not None else None}


def _schedule(cfg: DictConfig) -> Any:
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
            "warning: data=sample is a handful of photographs for trying things out, not a training set; yours: "
            "data=folder data.train_dir=DIR data.val_dir=DIR"
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


def _quiet() -> None:
    """Silence what Lightning says about hardware, loaders and intervals: shown otherwise, or on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def main() -> int:
    """Run the command line; returns the exit code of a sweep, 0 for a single run (or nothing to do)."""
    queue = sweep.Queue()
    end_with_parent()

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
    def job(cfg: DictConfig) -> int:
        settings = HydraConfig.get()
        try:
            if sweep.is_queued_here(settings):
                queue.add(settings, cfg)
            elif sweep.is_sweep(settings):
                return sweep.run_elsewhere(settings, cfg, partial(_run, settings, cfg))
            else:
                _run(settings, cfg)
        except (UserError, KeyboardInterrupt):
            # Hydra lets SystemExit pass, but prints any other exception in its own words and exits with 1.
            run_cli(_reraise)
        return 0

    try:
        job()
    except Exception as error:
        sweep.lost_job(error)
    return queue.run()


def _run(settings: HydraConf, cfg: DictConfig) -> None:
    _quiet()
    overrides = list(settings.overrides.task)
    if cfg.rerun is not None:
        overrides = [text for text in overrides if not text.startswith("rerun=")]
        cfg = again(cfg.rerun, overrides)
    if cfg.stage.get("chain") is not None:
        stages.run_chain(cfg, overrides, sweep.config_dirs(settings))
    else:
        if not torch.cuda.is_available():
            keep_freed_memory()
        train(cfg)


def _is_first_process() -> bool:
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def _reraise() -> int:
    raise  # the exception that is being handled


if __name__ == "__main__":
    # Launchers hand a job to another process by the name of its module, and __main__ is another module there.
    from src import train as importable

    run_cli(importable.main)
