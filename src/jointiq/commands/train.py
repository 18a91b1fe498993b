"""Train a model: ``python -m src.train +experiment=NAME [key=value ...]``; ``--help`` lists the options."""

from __future__ import annotations

from functools import partial

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from jointiq.errors import one_line_errors, run_cli
from jointiq.runs.resume import config_to_train
from jointiq.runtime import keep_freed_memory
from jointiq.sweeps.processes import end_with_parent
from jointiq.sweeps.sweep import config_dirs, run_elsewhere
from jointiq.training.validation import refuse_long_trial, refuse_missing_package, refuse_unread, validate
from jointiq.typed import hydra_command, task_overrides


@hydra_command("train")
def main(cfg: DictConfig) -> float | None:
    """Train; a job of a sweep in a process of another launcher returns its metric."""
    end_with_parent()
    settings = HydraConfig.get()
    with one_line_errors():
        if settings.mode == RunMode.MULTIRUN:
            return run_elsewhere(settings, cfg, partial(run, settings, cfg))
        run(settings, cfg)
    return None


def run(settings: HydraConf, cfg: DictConfig) -> None:
    """Train a model in this process, or the stages of a chain in processes of their own.

    Raises:
        UserError: a value, image or checkpoint that cannot be used, or a training that diverged.
        KeyboardInterrupt: stopped with Ctrl-C.
    """
    overrides = task_overrides(settings)
    if cfg.rerun is None:
        refuse_unread("train", cfg, overrides)
    cfg = config_to_train(cfg, overrides)
    validate(cfg)
    refuse_missing_package(cfg)
    in_stages = cfg.stage.get("chain") is not None
    if not in_stages:
        refuse_long_trial(cfg)
    # Imported late, so that the help and the checks above do not wait for PyTorch.
    import torch

    from jointiq.sweeps.stages import run_chain
    from jointiq.training.callbacks.stop import queued_again
    from jointiq.training.run import quiet, train

    quiet()
    with queued_again():
        if in_stages:
            run_chain(cfg, overrides, config_dirs(settings))
            return
        if not torch.cuda.is_available():
            keep_freed_memory()
        train(cfg)


if __name__ == "__main__":
    run_cli(main)
