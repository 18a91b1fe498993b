"""The staged recipe (``stage=all``): stages that train one after the other, chained through their checkpoints.

Every stage is a run of its own, in a process of its own and a folder of its own inside the run's: ``1_joint``,
``2_enhancer``, ``3_crop``.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from jointiq.command_line import command, override
from jointiq.errors import UserError
from jointiq.files import atomic_path
from jointiq.runs import folder as run_folder
from jointiq.runs import name as run_name
from jointiq.runs import resume
from jointiq.runs.folder import CHECKPOINT, DONE
from jointiq.runs.lock import RunLock
from jointiq.runs.rerun import again
from jointiq.sweeps.processes import EXIT_INTERRUPTED, EXIT_TERMINATED, run_process
from jointiq.training.validation import refuse_long_trial, validate
from jointiq.training.values import NO_FILE

# What the chain decides itself for each stage.
_OWN_KEYS = ("stage", "init_from", "ckpt_path", "rerun", "resume", "paths.run_dir")


@dataclass(frozen=True)
class Stage:
    """One stage of a chain: where it goes, how its process is told what to train, and the configuration that gives."""

    folder: Path
    overrides: tuple[str, ...]
    cfg: DictConfig


def run_chain(cfg: DictConfig, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Path:
    """Train the stages of ``cfg.stage.chain``.

    A stage that is finished is skipped and one that was cut is continued, unless the one before it was trained anew or
    ``resume=never``. What the later stages have left of an earlier run is moved aside before a stage is trained.

    Args:
        cfg: the composed config, which :func:`jointiq.training.validation.validate` has checked.
        overrides: what was typed to compose it.
        config_dirs: config folders that were given on the command line.

    Returns:
        The run's folder; its ``checkpoints/last.ckpt`` is the last stage's.

    Raises:
        UserError: a value that cannot be used in one of the stages, or a stage that failed.
        KeyboardInterrupt: a stage was stopped with Ctrl-C.
    """
    folder = run_name.run_folder(cfg)
    stages = plan(cfg, folder, overrides)
    for stage in stages:
        # The long first stage is not to be trained for a mistake in the last one.
        validate(stage.cfg)
        refuse_long_trial(stage.cfg)
    if cfg.init_from not in NO_FILE and not Path(cfg.init_from).is_file():
        raise UserError(
            f"init_from={cfg.init_from}: no such file; allowed: a checkpoint to take the first stage's place, "
            f"{', '.join(map(str, NO_FILE[1:]))}"
        )
    trained = resume.begins_anew(cfg)
    _describe(folder, cfg)
    for number, stage in enumerate(stages, start=1):
        label = f"stage {number} of {len(stages)}, {stage.folder.name}"
        if not trained and (stage.folder / DONE).is_file() and run_folder.holds(stage.folder, stage.cfg):
            _say(f"{label}: finished, skipped")
            continue
        goes_on = not trained and run_folder.holds(stage.folder, stage.cfg)
        start = resume.newest(stage.folder) if goes_on else resume.Start()
        for warning in start.warnings:
            _say(warning)
        _say(f"{label}: continued" if start.checkpoint else label)
        _move_aside(stages[number:] if start.checkpoint else stages[number - 1 :])
        how = {"ckpt_path": start.checkpoint} if start.checkpoint else {"resume": "never"}
        code = _run([*stage.overrides, *_texts(how)], config_dirs)
        if code == EXIT_INTERRUPTED:
            _say("the same command goes on")
            raise KeyboardInterrupt
        if code == EXIT_TERMINATED:
            sys.exit(EXIT_TERMINATED)
        if code:
            raise UserError(f"{label} failed with exit code {code}; its message is above")
        trained = True
    _finish(folder, stages[-1].folder)
    return folder


def _run(overrides: Sequence[str], config_dirs: Sequence[str]) -> int:
    try:
        return run_process(overrides, config_dirs)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def plan(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> list[Stage]:
    """The stages of a run in ``folder``, each with what is typed for it and what that comes to.

    Without the first one where ``init_from`` names a checkpoint, which takes its place.
    """
    return (_composed if cfg.rerun is None else _repeated)(cfg, folder, overrides)


def _composed(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> list[Stage]:
    stages = []
    start = cfg.init_from
    links = list(enumerate(cfg.stage.chain, start=1))
    for number, link in links if start in NO_FILE else links[1:]:
        kept = [text for text in overrides if _key(text) not in (*_OWN_KEYS, *link)]
        at = folder / f"{number}_{link.stage}"
        own: dict[str, Any] = {**link, "paths.run_dir": at, "init_from": start}
        told = (*kept, *_texts(own))
        stages.append(Stage(at, told, compose("train", overrides=list(told))))
        start = at / CHECKPOINT
    return stages


def _repeated(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> list[Stage]:
    """The stages of an earlier chain, from their saved configurations."""
    stages: list[Stage] = []
    kept = [text for text in overrides if _key(text) not in _OWN_KEYS]
    for number, link in enumerate(cfg.stage.chain, start=1):
        name = f"{number}_{link.stage}"
        if number == 1 and cfg.init_from not in NO_FILE:
            continue
        start = stages[-1].folder / CHECKPOINT if stages else cfg.init_from
        own: dict[str, Any] = {"paths.run_dir": folder / name, "init_from": start}
        earlier = Path(cfg.rerun) / name
        told = [*kept, *_texts(own)]
        stages.append(Stage(folder / name, (override("rerun", earlier), *told), again(earlier, told)))
    return stages


def _texts(values: Mapping[str, Any]) -> list[str]:
    return [override(key, value) for key, value in values.items()]


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]


@rank_zero_only
def _describe(folder: Path, cfg: DictConfig) -> None:
    (folder / DONE).unlink(missing_ok=True)
    run_folder.describe(folder, cfg)


@rank_zero_only
def _move_aside(stages: Sequence[Stage]) -> None:
    """Move earlier runs of ``stages`` aside: a cluster's job that is queued again is not to take them for its own."""
    for stage in stages:
        if not stage.folder.is_dir():
            continue
        lock = RunLock(stage.folder)
        lock.acquire()
        moved = run_folder.move_aside(stage.folder)
        lock.release()
        if moved is not None:
            _say(f"an earlier run was moved to {moved}")


@rank_zero_only
def _finish(folder: Path, last: Path) -> None:
    """Give the run the last stage's checkpoint, as every run has one."""
    with atomic_path(folder / CHECKPOINT) as temporary:
        shutil.copyfile(last / CHECKPOINT, temporary)
    run_folder.mark_done(folder, run_folder.done_step(last))
    _say(f"trained all stages: {folder / CHECKPOINT}")
    _say(f"again, from its own configurations: {command(rerun=folder)}")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
