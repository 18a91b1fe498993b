"""Measure a model's cost: ``python -m src.complexity checkpoint=CKPT``, or ``+experiment=NAME`` if it is untrained."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from jointiq.bitstream.container import SIZES, positions
from jointiq.bitstream.scan import MAX_POSITIONS
from jointiq.console import progress_bar
from jointiq.errors import ConfigError, run_cli
from jointiq.evaluation.stopwatch import processor_name
from jointiq.files import write_text
from jointiq.models import build_model
from jointiq.runtime import pick_device, set_threads
from jointiq.training.validation import refuse_unread, validate
from jointiq.typed import hydra_command, task_overrides

if TYPE_CHECKING:
    from jointiq.layers.padding import Size
    from jointiq.models.base import LearnedCodec


def _size(value: object) -> Size:
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", str(value))
    if found is None:
        raise ConfigError("size", value, "WIDTHxHEIGHT in pixels, such as 768x512")
    width, height = map(int, found.groups())
    if positions(height, width) > MAX_POSITIONS:
        raise ConfigError("size", value, SIZES)
    return height, width


def _model(cfg: DictConfig) -> LearnedCodec:
    if cfg.checkpoint is not None:
        from jointiq.coding.load import load_model

        return load_model(str(cfg.checkpoint))
    validate(cfg)
    from jointiq.training.assemble import model_config

    return build_model(model_config(cfg))


def measure(cfg: DictConfig) -> None:
    """Measure the model that ``cfg`` (conf/complexity.yaml) names; print and write the result."""
    size = _size(cfg.size)
    if type(cfg.repeats) is not int or cfg.repeats < 0:
        raise ConfigError("repeats", cfg.repeats, "a whole number from 0 up")
    if cfg.output is not None and not str(cfg.output).endswith(".json"):
        raise ConfigError("output", cfg.output, "null, or the path of a file to write, ending in .json")
    if not isinstance(cfg.threads, int | None):
        raise ConfigError("threads", cfg.threads, "null or a whole number from 1 up")
    # Imported late, so that the checks above do not wait for PyTorch.
    import torch

    from jointiq.evaluation.complexity import complexity, complexity_table, steps

    device = pick_device(str(cfg.device))
    set_threads(cfg.threads)
    model = _model(cfg).to(device)
    with progress_bar() as progress:
        task = progress.add_task("complexity", total=steps(cfg.repeats), note="")
        done = itertools.count()
        result = complexity(
            model, size, cfg.repeats, lambda note: progress.update(task, completed=next(done), note=note)
        )
        progress.update(task, completed=next(done), note="")
    setting = {
        "model": model.config,
        "checkpoint": cfg.checkpoint,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "threads": torch.get_num_threads(),
        "repeats": cfg.repeats,
    }
    complexity_table(result, f"{cfg.checkpoint or cfg.experiment_name}, {cfg.size}").print()
    if result.encoding_memory is not None and result.decoding_memory is not None:
        encoding, decoding = (memory / 2**30 for memory in (result.encoding_memory, result.decoding_memory))
        print(f"peak memory: {encoding:.2f} GiB encoding, {decoding:.2f} GiB decoding")
        print(f"{setting['device']}, threads: {setting['threads']}; median of {cfg.repeats} runs")
        if cfg.checkpoint is None:
            print("random weights: their latents are nearly empty, and coded faster than those of a trained model")
    if cfg.output is not None:
        write_text(Path(cfg.output), json.dumps({**result.as_dict(), "setting": setting}, indent=2) + "\n")
        print("written:", cfg.output)


@hydra_command("complexity")
def main(cfg: DictConfig) -> None:
    """Entry point."""

    def run() -> None:
        refuse_unread("complexity", cfg, task_overrides(HydraConfig.get()))
        measure(cfg)

    run_cli(run)


if __name__ == "__main__":
    main()
