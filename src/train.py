"""Train a model: ``python -m src.train +experiment=NAME [key=value ...]``; ``--help`` lists what there is."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from src.data import build_data
from src.errors import DataError, UserError, run_cli
from src.models import build_model
from src.training import loggers, resolvers, run_folder, stages, sweep
from src.training.callbacks import StopOnInterrupt, WeightMean
from src.training.checkpoint_io import (
    AtomicCheckpointIO,
    check_same_averaging,
    check_same_model,
    read_training_checkpoint,
)
from src.training.compression_module import CompressionModule, EnhancementModule, NonFiniteError
from src.training.initialise import initialise
from src.training.losses import RateDistortionLoss
from src.training.schedules import build_schedule
from src.training.validation import validate

CONFIGS = Path(__file__).resolve().parents[1] / "conf"

resolvers.register()


def train(cfg: DictConfig) -> Path:
    """Train what ``cfg`` (the composed ``train`` config) describes.

    Returns:
        The run's folder; it holds ``checkpoints/last.ckpt``.

    Raises:
        UserError: a value, image or checkpoint that cannot be used, or a training that diverged.
        KeyboardInterrupt: stopped with Ctrl-C; the state is saved.
    """
    validate(cfg)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build_data(cfg.data, seed=cfg.seed)
    data.setup("fit")
    net = build_model(model_config(cfg))
    first_step, taken = 0, None
    if cfg.ckpt_path is not None:
        checkpoint = read_training_checkpoint(cfg.ckpt_path)
        check_same_model(checkpoint, net.config, cfg.ckpt_path)
        check_same_averaging(checkpoint, cfg.optim.ema_decay is not None, cfg.ckpt_path)
        first_step = checkpoint["global_step"]
    elif cfg.init_from is not None:
        taken = initialise(net, cfg.init_from)
    module_class = EnhancementModule if cfg.stage.trains == "enhancer" else CompressionModule
    module = module_class(
        net,
        RateDistortionLoss(cfg.lmbda, cfg.distortion.name, cfg.distortion.rate_unit),
        _schedule(cfg),
        lr=cfg.optim.lr,
        aux_lr=cfg.optim.aux_lr,
        clip_norm=cfg.optim.clip_norm,
        crop=cfg.stage.crop,
        name=cfg.experiment_name,
    )

    folder = run_folder.run_folder(cfg)
    cfg.paths.run_dir = str(folder)
    interrupt = StopOnInterrupt()
    trainer = _trainer(cfg, interrupt)
    _announce(cfg, folder, net, first_step, taken)
    last = folder / run_folder.CHECKPOINT
    try:
        trainer.loggers = list(_start_loggers(cfg, first_step))
        with _one_line_errors(last):
            trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
            if not interrupt.interrupted and module.validated_at != trainer.global_step:
                trainer.validate(module, datamodule=data, verbose=False)
    finally:
        loggers.finish_wandb()
    _say(f"{'stopped' if interrupt.interrupted else 'trained'} at step {trainer.global_step}: {last}")
    if interrupt.interrupted:
        _say(f"continue with the same command and ckpt_path={last}")
        raise KeyboardInterrupt
    _finish(folder, trainer.global_step)
    return folder


def model_config(cfg: DictConfig) -> dict[str, Any]:
    """What :func:`src.models.build_model` reads: the model's group, with the enhancer's (or None) inside it."""
    config: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    enhancer: Any = OmegaConf.to_container(cfg.enhancer, resolve=True)
    return {**config, "enhancer": enhancer if enhancer["name"] is not None else None}


def _schedule(cfg: DictConfig) -> Any:
    optim = cfg.optim
    return build_schedule(
        optim.schedule, cfg.trainer.max_steps, optim.halvings, optim.decay_steps, optim.decay_share, optim.final_share
    )


def _trainer(cfg: DictConfig, interrupt: StopOnInterrupt) -> lightning.Trainer:
    arguments: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    arguments["val_check_interval"] = min(arguments["val_check_interval"], arguments["max_steps"])
    callbacks = [_instantiate("callbacks", callback) for callback in cfg.callbacks.values()]
    if cfg.optim.ema_decay is not None:
        callbacks.insert(0, WeightMean(cfg.optim.ema_decay))
    try:
        return lightning.Trainer(
            **arguments,
            max_epochs=-1,
            # Validation is counted in steps, because the data have no epochs.
            check_val_every_n_epoch=None,
            # The data module splits the batches over the processes itself.
            use_distributed_sampler=False,
            # What the networks precompute for a size must stay usable in training.
            inference_mode=False,
            num_sanity_val_steps=0,
            callbacks=[interrupt, *callbacks],
            logger=False,
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}; allowed: see conf/trainer") from error


def _start_loggers(cfg: DictConfig, first_step: int) -> Iterator[Any]:
    resolved = OmegaConf.to_container(cfg, resolve=True)
    identity = loggers.wandb_identity(Path(cfg.paths.run_dir), Path(cfg.paths.results))
    for name, settings in cfg.logger.items():
        logger = _instantiate("logger", settings, **({"values": resolved, **identity} if name == "wandb" else {}))
        if isinstance(logger, loggers.CsvLog) and first_step:
            logger.keep_until(first_step)
        yield logger


def _instantiate(group: str, settings: DictConfig, **more: Any) -> Any:
    try:
        return hydra.utils.instantiate(settings, **{key: value for key, value in more.items() if key not in settings})
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{group}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _one_line_errors(last: Path) -> Iterator[None]:
    """Say what Lightning and the data workers wrap into tracebacks as what it is."""
    try:
        yield
    except NonFiniteError as error:
        kept = f"last good checkpoint: {last}" if last.is_file() else "no checkpoint had been saved yet"
        raise NonFiniteError(f"{error}; {kept}; a smaller optim.lr or optim.clip_norm=1 may help") from error
    except DataError as error:
        # An error of a worker process arrives with its traceback; the message is the last line.
        raise DataError(str(error).strip().splitlines()[-1].removeprefix("src.errors.DataError: ")) from error
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


@rank_zero_only
def _announce(cfg: DictConfig, folder: Path, net: Any, first_step: int, taken: str | None) -> None:
    moved = run_folder.prepare(folder, cfg)
    if moved is not None:
        _say(f"an earlier run of this configuration was moved to {moved}")
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
    _say(f"again, from its own configuration: {run_folder.command(rerun=folder)}")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _quiet() -> None:
    """Silence what Lightning says about hardware, loaders and intervals: shown otherwise, or on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def main() -> int:
    """Run the command line; returns the exit code of a sweep, 0 for a single run."""
    results: list[sweep.JobResult] = []

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
    def job(cfg: DictConfig) -> None:
        settings = HydraConfig.get()
        if sweep.starts_processes(settings):
            results.append(sweep.run_job(settings))
            return
        # A job that another launcher runs has a process of its own.
        os.environ.update({**sweep.group(settings), **os.environ})
        _quiet()
        try:
            overrides = list(settings.overrides.task)
            if cfg.rerun is not None:
                overrides = [text for text in overrides if not text.startswith("rerun=")]
                cfg = run_folder.again(cfg.rerun, overrides)
            if cfg.stage.get("chain") is not None:
                stages.run_chain(cfg, overrides, sweep.config_dirs(settings))
            else:
                train(cfg)
        except (UserError, KeyboardInterrupt):
            # Hydra lets SystemExit pass, but prints any other exception in its own words and exits with 1.
            run_cli(_reraise)

    job()
    if not results:
        return 0
    print(sweep.summary(results), flush=True)
    return int(any(result.code != 0 for result in results))


def _reraise() -> int:
    raise  # the exception that is being handled


if __name__ == "__main__":
    run_cli(main)
