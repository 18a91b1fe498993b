"""Train a model: ``python -m src.train +experiment=NAME [key=value ...]``; ``--help`` lists what there is."""

from __future__ import annotations

from functools import partial

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from jointiq.configs import CONFIGS
from jointiq.errors import UserError, run_cli
from jointiq.runs.rerun import again
from jointiq.runtime import keep_freed_memory
from jointiq.sweeps import sweep
from jointiq.sweeps.processes import end_with_parent
from jointiq.training.validation import refuse_long_trial, validate


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
    overrides = list(settings.overrides.task)
    if cfg.rerun is not None:
        overrides = [text for text in overrides if not text.startswith("rerun=")]
        cfg = again(cfg.rerun, overrides)
    validate(cfg)
    in_stages = cfg.stage.get("chain") is not None
    if not in_stages:
        refuse_long_trial(cfg)
    # Imported late: help and what is refused above do not wait for PyTorch.
    import torch

    from jointiq.sweeps import stages
    from jointiq.training import run

    run.quiet()
    if in_stages:
        stages.run_chain(cfg, overrides, sweep.config_dirs(settings))
    else:
        if not torch.cuda.is_available():
            keep_freed_memory()
        run.train(cfg)


def _reraise() -> int:
    raise  # the exception that is being handled


if __name__ == "__main__":
    # Launchers hand a job to another process by the name of its module, and __main__ is another module there.
    from jointiq.commands import train as importable

    run_cli(importable.main)
