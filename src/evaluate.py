"""Evaluate checkpoints by way of real files: ``python -m src.evaluate checkpoint=[A.ckpt,B.ckpt] output=OUT.json``."""

from __future__ import annotations

from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, ListConfig

from src.data import test_images
from src.errors import ConfigError, run_cli
from src.evaluation.evaluator import evaluate_checkpoints, pick_device
from src.evaluation.progress import progress_bar
from src.evaluation.rd import ImageRow, write_rd
from src.evaluation.tables import rd_table


def _checkpoints(value: object) -> list[str]:
    paths = list(value) if isinstance(value, list | ListConfig) else [value]
    if not paths or not all(isinstance(path, str) and path for path in paths) or len(set(paths)) < len(paths):
        raise ConfigError("checkpoint", value, "a checkpoint's path, or a list of different ones: checkpoint=[A,B]")
    return paths


def evaluate(cfg: DictConfig) -> int:
    """Run the evaluation that ``cfg`` (conf/evaluate.yaml) describes; 1 if any decoder missed the encoder's latents."""
    checkpoints = _checkpoints(cfg.checkpoint)
    if not isinstance(cfg.output, str) or not cfg.output.endswith(".json"):
        raise ConfigError("output", cfg.output, "the path of the RD file to write, ending in .json")
    if cfg.threads is not None and (not isinstance(cfg.threads, int) or cfg.threads < 1):
        raise ConfigError("threads", cfg.threads, "null (PyTorch's choice) or a whole number from 1 up")
    device = pick_device(str(cfg.device))
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    images = test_images(cfg.data)
    with progress_bar() as progress:
        task = progress.add_task("evaluate", total=len(checkpoints) * len(images), note="")

        def advance(row: ImageRow) -> None:
            progress.update(task, advance=1, note=f"{row.image} {row.bpp:.3f} bpp {row.psnr:.2f} dB")

        curve = evaluate_checkpoints(
            checkpoints, images, cfg.name or Path(cfg.output).stem, cfg.description or "", device, advance
        )
    written = write_rd(cfg.output, curve)
    rd_table(curve).print()
    print("written:", *written)
    unequal = [f"{row['checkpoint']} {row['image']}" for row in curve.images if not row["latents_equal"]]
    if unequal:
        print(f"the decoder did not arrive at the encoder's latents: {', '.join(unequal)}")
    return 1 if unequal else 0


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_cli(lambda: evaluate(cfg))


if __name__ == "__main__":
    main()
