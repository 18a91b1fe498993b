"""Train a chain of stages (``stage=all``), each of which starts from the checkpoint of the one before it.

Every stage is a run in a process of its own, and in a folder of its own inside the run's: ``1_joint``, ``2_enhancer``,
``3_crop``.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from jointiq.coding import CHECKPOINT
from jointiq.command_line import command, override
from jointiq.configs import compose
from jointiq.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UserError
from jointiq.files import atomic_path
from jointiq.runs import folder as run_folder
from jointiq.runs import rd_point, resume
from jointiq.runs.folder import DONE, RD_FILE
from jointiq.runs.lock import locked
from jointiq.runs.name import run_folder as folder_of
from jointiq.sweeps.processes import run_process
from jointiq.training.validation import NO_FILE, refuse_long_trial, validate

#: Trains with the given overrides and config folders, and returns an exit code.
TrainStage = Callable[[Sequence[str], Sequence[str]], int]

# Keys that the chain sets itself for each stage.
_OWN_KEYS = ("stage", "init_from", "ckpt_path", "rerun", "resume", "paths.run_dir")


@dataclass(frozen=True)
class Stage:
    """One stage of a chain: the folder of its run, the overrides of its process, and the config composed from them."""

    folder: Path
    overrides: tuple[str, ...]
    cfg: DictConfig


def run_chain(
    cfg: DictConfig, overrides: Sequence[str], config_dirs: Sequence[str] = (), train_stage: TrainStage = run_process
) -> Path:
    """Train the stages of ``cfg.stage.chain``.

    A finished stage is skipped and an interrupted one is continued, unless the stage before it was trained anew or
    ``resume=never``. Before a stage is trained, earlier runs of the later stages are moved aside.

    Args:
        cfg: the composed config, which :func:`jointiq.training.validation.validate` has checked.
        overrides: what was typed to compose it.
        config_dirs: config folders that were given on the command line.
        train_stage: trains one stage.

    Returns:
        The run's folder; its ``checkpoints/last.ckpt`` is the last stage's.

    Raises:
        UserError: a value that cannot be used in one of the stages, or a stage that failed.
        KeyboardInterrupt: a stage was stopped with Ctrl-C.
    """
    folder = folder_of(cfg)
    stages = plan(cfg, folder, overrides)
    for stage in stages:
        # A mistake in the last stage must show before the long first one is trained.
        validate(stage.cfg)
        refuse_long_trial(stage.cfg)
    if cfg.init_from not in NO_FILE and not Path(cfg.init_from).is_file():
        raise UserError(
            f"init_from={cfg.init_from}: no such file; allowed: a checkpoint to take the first stage's place, "
            f"{', '.join(map(str, NO_FILE[1:]))}"
        )
    anew = resume.begins_anew(cfg)
    _describe(folder, cfg)
    for number, stage in enumerate(stages, start=1):
        label = f"stage {number} of {len(stages)}, {stage.folder.name}"
        is_ours = not anew and run_folder.holds(stage.folder, stage.cfg)
        if is_ours and (stage.folder / DONE).is_file() and not rd_point.is_missing(stage.folder, stage.cfg):
            _say(f"{label}: finished, skipped")
            continue
        start = resume.newest(stage.folder) if is_ours else resume.Start()
        for warning in start.warnings:
            _say(warning)
        _say(f"{label}: continued" if start.checkpoint else label)
        _move_aside(stages[number:] if start.checkpoint else stages[number - 1 :])
        how = override("ckpt_path", start.checkpoint) if start.checkpoint else "resume=never"
        code = train_stage((*stage.overrides, how), config_dirs)
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if code == EXIT_TERMINATED:
            sys.exit(EXIT_TERMINATED)
        if code:
            raise UserError(f"{label} failed with exit code {code}; its message is above")
        anew = True  # the later stages start from the new checkpoint
    _finish(folder, stages[-1].folder)
    return folder


def plan(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> list[Stage]:
    """Return the stages of a run in ``folder``.

    Every stage starts from the one before it. A checkpoint in ``init_from`` takes the place of the first stage. With
    ``rerun=`` the stages are those of an earlier chain, from their saved configs.
    """
    kept = [text for text in overrides if _key(text) not in _OWN_KEYS]
    stages: list[Stage] = []
    start = cfg.init_from
    for number, link in enumerate(cfg.stage.chain, start=1):
        if number == 1 and start not in NO_FILE:
            continue
        is_last = number == len(cfg.stage.chain)
        name = f"{number}_{link.stage}"
        own = [override("paths.run_dir", folder / name), override("init_from", start)]
        own += [] if is_last else ["test=false"]
        if cfg.rerun is None:
            chosen = [override(key, value) for key, value in link.items()]
            typed = (*(text for text in kept if _key(text) not in link), *chosen, *own)
        else:
            typed = (override("rerun", Path(cfg.rerun) / name), *kept, *own)
        stages.append(Stage(folder / name, typed, resume.config_to_train(compose("train", list(typed)), typed)))
        start = folder / name / CHECKPOINT
    return stages


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]


@rank_zero_only
def _describe(folder: Path, cfg: DictConfig) -> None:
    (folder / DONE).unlink(missing_ok=True)
    run_folder.describe(folder, cfg)


@rank_zero_only
def _move_aside(stages: Sequence[Stage]) -> None:
    """Move earlier runs of ``stages`` aside, so that a requeued job of a cluster does not take them for its own."""
    for stage in stages:
        if not stage.folder.is_dir():
            continue
        with locked(stage.folder):
            moved = run_folder.move_aside(stage.folder)
        if moved is not None:
            _say(f"an earlier run was moved to {moved}")


@rank_zero_only
def _finish(folder: Path, last: Path) -> None:
    """Copy the last stage's checkpoint and RD point into the run's folder, and mark the run as complete."""
    for name in (CHECKPOINT, RD_FILE):
        if (last / name).is_file():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(last / name, temporary)
    run_folder.mark_done(folder, run_folder.done_step(last))
    _say(f"trained all stages: {folder / CHECKPOINT}")
    _say(f"again, from its own configurations: {command(rerun=folder)}")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
