"""Run one training from its composed config to its RD point: what ``python -m src.train`` starts."""

from __future__ import annotations

import contextlib
import errno
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from jointiq.coding import CHECKPOINT
from jointiq.command_line import command, program
from jointiq.configs import literal
from jointiq.errors import DataError, UserError
from jointiq.evaluation.rd import MS_SSIM, PSNR
from jointiq.runs import folder as run_folder
from jointiq.runs import rd_point
from jointiq.runs.lock import locked
from jointiq.runs.name import has_all_rates
from jointiq.runs.name import run_folder as folder_of
from jointiq.runs.resume import Start, find_start
from jointiq.runs.status import note_failure
from jointiq.runtime import ended_by_signals, set_threads, tf32
from jointiq.training.assemble import Training, build_loggers, build_training, end_logs, start_logs
from jointiq.training.callbacks.stop import LOST, end_with_others
from jointiq.training.modules.compression import NonFiniteError


def quiet() -> None:
    """Silence Lightning's remarks on hardware, loaders and intervals, which are intended or shown elsewhere."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        # Errors go to stderr, not into Hydra's log.
        logger.propagate = False
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def train(cfg: DictConfig) -> Path:
    """Train the run that ``cfg`` describes, or continue it, and measure the result.

    Args:
        cfg: the composed ``train`` config of a single stage, which :mod:`jointiq.training.validation` has checked.

    Returns:
        The run's folder; it holds ``checkpoints/last.ckpt`` and, unless ``test=false``, ``rd.json``. With
        ``trainer.fast_dev_run`` nothing is written to it.

    Raises:
        UserError: a value, image or checkpoint that cannot be used, or a training that diverged.
        KeyboardInterrupt: stopped with Ctrl-C; the state is saved, unless Ctrl-C was typed twice or before the first
            step.
        SystemExit: stopped by another signal; the state is saved likewise.
    """
    folder = folder_of(cfg)
    if cfg.trainer.get("fast_dev_run"):
        _try(cfg)
        return folder
    is_first = _is_first_process()  # of the processes of a distributed run, which share the folder
    # For signals before and after the training itself, during which StopOnSignal saves the state first.
    with ended_by_signals(), locked(folder) if is_first else contextlib.nullcontext():
        start = find_start(folder, cfg)
        for warning in start.warnings:
            _say(warning)
        to_measure = is_first and rd_point.is_missing(folder, cfg)  # a wrong folder is refused before the training
        if start.finished:
            further = f"ckpt_path={folder / CHECKPOINT} trainer.max_steps=MORE"
            _say(f"finished before: {folder} (resume=never trains it again, {further} goes on with it)")
            if to_measure:
                _measure_again(folder, cfg)
            return folder
        start = replace(start, state=start.read())
        _refuse_nothing_to_do(folder, cfg, start)
        cfg.paths.run_dir = literal(str(folder))
        training = build_training(cfg, start)
        start = replace(start, state=None)  # the trainer has the checkpoint's contents now, and frees them once loaded
        if is_first:
            moved = run_folder.prepare(folder, cfg, start.checkpoint)
            if moved is not None:
                _say(f"an earlier run was moved to {moved}")
        _announce(cfg, training)
        loggers, stop = training.trainer.loggers, training.stop
        try:
            fit(cfg, training, start.checkpoint)
            step = training.trainer.global_step
            saved = (folder / CHECKPOINT).is_file()
            result = folder / CHECKPOINT if saved else "nothing saved without callbacks.checkpoint"
            _say(f"{'stopped' if stop.stopped else 'trained'} at step {step}: {result}")
            if saved and not stop.stopped and is_first:
                # Before measuring: if that is stopped, the run counts as finished, and the same command measures it.
                run_folder.mark_done(folder, step)
                measure(folder, cfg, loggers, step)
                _say(f"again, from its own configuration: {command(rerun=folder)}")
        finally:
            end_logs(loggers)
    if stop.stopped:
        _say("the same command goes on")
        stop.leave(is_first)
    return folder


def _refuse_nothing_to_do(folder: Path, cfg: DictConfig, start: Start) -> None:
    """Refuse a ``ckpt_path`` with no steps left, unless this run itself was stopped in its last validation."""
    if start.state is None or start.checkpoint != cfg.ckpt_path:
        return
    step, steps = start.state["global_step"], cfg.trainer.max_steps
    if step > steps or (step == steps and not run_folder.is_inside(folder, start.checkpoint)):
        raise UserError(
            f"ckpt_path={cfg.ckpt_path} has trained {step} steps, and trainer.max_steps={steps}: there is nothing to "
            "do; allowed: a larger trainer.max_steps, to train further, or init_from=, to start anew from its weights"
        )


def _try(cfg: DictConfig) -> None:
    """Train and validate the few batches of ``trainer.fast_dev_run`` in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        cfg.paths.run_dir = literal(folder)
        training = build_training(cfg, Start(cfg.ckpt_path))
        _announce(cfg, training)
        try:
            fit(cfg, training, cfg.ckpt_path)
        finally:
            end_logs(training.trainer.loggers)
    if not training.stop.stopped:
        _say(f"fast_dev_run: {training.trainer.global_step} steps and a validation went through; nothing is kept")
        return
    training.stop.leave(_is_first_process())


def measure(folder: Path, cfg: DictConfig, loggers: Sequence[Logger], step: int) -> None:
    """Code the test images to files with the trained model, write its RD point into ``folder``, and log it.

    Args:
        step: optimizer steps of the training.

    Raises:
        UserError: the checkpoint cannot be opened, or every image failed.
    """
    if not rd_point.images_of(cfg):
        if cfg.test:
            _say("no test images (data.test_dir=null): the run is not measured")
        return
    try:
        curve = rd_point.measure(folder, cfg)
    except (KeyboardInterrupt, SystemExit):
        _say("stopped while the run is measured: the same command goes on")
        raise
    for failed in curve.about.get("failed", ()):
        _say(f"test: {failed['image']} failed and is left out: {failed['problem']}")
    points = [{key: values[i] for key, values in curve.results.items()} for i in range(len(curve))]
    means = {
        # Names of several points are numbered by rising rate.
        name if len(points) == 1 else f"{name}_{number}": point[key]
        for number, point in enumerate(points, start=1)
        for key, name in rd_point.LOGGED.items()
        if key in point
    }
    for logger in loggers:
        logger.log_metrics(means, step)
        logger.save()
    for number, point in enumerate(points):
        # A model of all rates has a point "CHECKPOINT qN" for each quality.
        at = f"{curve.parameter[number].rpartition(' ')[2]}, " if len(points) > 1 else ""
        ms_ssim = f", MS-SSIM {point[MS_SSIM]:.4f}" if MS_SSIM in point else ""
        _say(f"test: {at}{point['bpp']:.4f} bpp, PSNR {point[PSNR]:.2f} dB{ms_ssim}, real files: {folder}")


def _measure_again(folder: Path, cfg: DictConfig) -> None:
    """Measure a run that is trained already."""
    cfg.paths.run_dir = literal(str(folder))
    set_threads(cfg.get("threads"))
    loggers, step = build_loggers(cfg), run_folder.done_step(folder)
    try:
        start_logs(cfg, loggers, step)
        measure(folder, cfg, loggers, step)
    finally:
        end_logs(loggers)


def fit(cfg: DictConfig, training: Training, checkpoint: str | None) -> None:
    """Train, and validate the result; note a failure in the run's folder.

    Args:
        checkpoint: the checkpoint to continue from; None: begin at step 0.

    Raises:
        UserError: the training diverged, or an image, a disk or the trainer failed.
    """
    folder = Path(cfg.paths.run_dir)
    trainer, module, data = training.trainer, training.module, training.data
    try:
        start_logs(cfg, trainer.loggers, training.first_step)
        with unwrapped_errors(folder / CHECKPOINT), tf32(cfg.tf32):
            end_with_others(trainer, folder)
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            if not training.stop.stopped and module.validated_at != trainer.global_step:
                trainer.validate(module, datamodule=data, verbose=False)
    except Exception as error:
        if _is_first_process():
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            note_failure(folder, f"{kind}{' '.join(str(error).split())}")
        raise


@contextlib.contextmanager
def unwrapped_errors(last: Path) -> Iterator[None]:
    """Raise errors that Lightning and the data workers wrap in tracebacks, or in an exit code, as user errors."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit code 1
            raise KeyboardInterrupt from error
        raise
    except NonFiniteError as error:
        kept = f"last good checkpoint: {last}" if last.is_file() else "no checkpoint had been saved yet"
        raise NonFiniteError(f"{error}; {kept}; a smaller optim.lr or optim.clip_norm=1 may help") from error
    except DataError as error:
        # A worker process's error arrives with its traceback; the message is the last line.
        raise DataError(str(error).strip().splitlines()[-1].removeprefix("jointiq.errors.DataError: ")) from error
    except MisconfigurationException as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        # NCCL's errors have a class of their own; gloo's are known by their text.
        if not isinstance(error, torch.distributed.DistError) and "gloo/transport" not in str(error):
            raise
        raise UserError(LOST) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk is full ({error.filename or last.parent.parent}); what was saved stays; make room and type the "
            "same command, which goes on"
        ) from error


@rank_zero_only
def _announce(cfg: DictConfig, training: Training) -> None:
    if cfg.data.name == "sample":
        _say(
            f"scale={cfg.scale.name} on data=sample, a handful of photographs for trying things out; your images, by "
            "default at scale=paper: data=folder data.train_dir=DIR data.val_dir=DIR"
        )
    if getattr(training.data, "reads_files", False):
        _say(
            f"the training images take more than data.preload_mb={cfg.data.preload_mb:g}, so every patch reads a whole "
            f"one; faster: a larger data.preload_mb, or patches cut in advance ({program('prepare')}, data=prepared)"
        )
    parameters = sum(parameter.numel() for parameter in training.module.net.parameters()) / 1e6
    rate = "all rates" if has_all_rates(cfg) else f"lmbda {cfg.lmbda:g}"
    size = f"{rate}, {parameters:.2f} million parameters"
    start = f", continuing after step {training.first_step}" if training.first_step else ""
    _say(f"{cfg.experiment_name}: {size}{start}, run folder {cfg.paths.run_dir}")
    if training.taken is not None:
        _say(f"init_from: {training.taken}")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _is_first_process() -> bool:
    return bool(getattr(rank_zero_only, "rank", 0) == 0)
