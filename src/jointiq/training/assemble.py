"""What a training consists of, built from its configuration: Lightning's trainer, callbacks, loggers."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import lightning
from hydra.errors import InstantiationException
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from jointiq.errors import DataError, UserError
from jointiq.training.callbacks.checkpoint import WeightMean
from jointiq.training.callbacks.checkpoint_io import AtomicCheckpointIO
from jointiq.training.callbacks.compiled import Compile
from jointiq.training.callbacks.health import FiniteLoss
from jointiq.training.callbacks.late_validation import LateValidation
from jointiq.training.callbacks.status_file import StatusFile
from jointiq.training.callbacks.step_seed import StepSeed
from jointiq.training.callbacks.stop import StopOnSignal
from jointiq.training.csv_log import CsvLog
from jointiq.training.modules.compression import NonFiniteError


def build_trainer(cfg: DictConfig, stop: StopOnSignal) -> lightning.Trainer:
    """Return Lightning's trainer with our callbacks and the loggers of ``cfg.logger``.

    Args:
        cfg: the composed config; ``paths.run_dir`` is the run's folder.
        stop: the callback that ends the training on a signal.

    Raises:
        UserError: an argument that Lightning, a callback or a logger refuses.
    """
    arguments: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    arguments["val_check_interval"] = min(arguments["val_check_interval"], arguments["max_steps"])
    callbacks = [_instantiate("callbacks", callback) for callback in cfg.callbacks.values()]
    loggers = [_instantiate("logger", logger) for logger in cfg.logger.values()]
    if cfg.optim.ema_decay is not None:
        callbacks.insert(0, WeightMean(cfg.optim.ema_decay))
    if cfg.optim.get("compile"):
        callbacks.append(Compile(cfg.optim.compile))
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
            callbacks=[
                StepSeed(cfg.seed),
                FiniteLoss(),
                stop,
                *callbacks,
                StatusFile(Path(cfg.paths.run_dir)),
                LateValidation(),
            ],
            logger=loggers,
            plugins=[AtomicCheckpointIO(), *_cluster()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}; allowed: see conf/trainer") from error


def _cluster() -> list[Any]:
    """SLURM, where this is one of its tasks; without Lightning's way to queue a job again, which saves elsewhere."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def start_logs(cfg: DictConfig, trainer: lightning.Trainer, first_step: int) -> None:
    """Hand the resolved configuration to the loggers; the CSV log keeps its rows of the first ``first_step`` steps."""
    resolved: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for logger in trainer.loggers:
        if isinstance(logger, CsvLog):
            logger.keep_until(first_step)
        logger.log_hyperparams(resolved)


def _instantiate(group: str, settings: DictConfig) -> Any:
    try:
        return hydra.utils.instantiate(settings)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{group}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def one_line_errors(last: Path) -> Iterator[None]:
    """Say what Lightning and the data workers wrap into tracebacks, or into an exit code, as what it is."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes a failure of it: exit code 1
            raise KeyboardInterrupt from error
        raise
    except NonFiniteError as error:
        kept = f"last good checkpoint: {last}" if last.is_file() else "no checkpoint had been saved yet"
        raise NonFiniteError(f"{error}; {kept}; a smaller optim.lr or optim.clip_norm=1 may help") from error
    except DataError as error:
        # An error of a worker process arrives with its traceback; the message is the last line.
        raise DataError(str(error).strip().splitlines()[-1].removeprefix("jointiq.errors.DataError: ")) from error
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk is full ({error.filename or last.parent.parent}); what was saved stays; make room and type the "
            "same command, which goes on"
        ) from error
