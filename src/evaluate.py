"""Evaluate checkpoints by way of real files: ``python -m src.evaluate checkpoint=[A.ckpt,B.ckpt] output=OUT.json``."""

from __future__ import annotations

import os
from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig

from src.data import test_images
from src.errors import ConfigError, run_cli
from src.evaluation.evaluator import evaluate_checkpoints
from src.evaluation.progress import progress_bar
from src.evaluation.rd import ImageRow, write_rd
from src.evaluation.tables import rd_table
from src.runtime import pick_device, set_threads

CONFIGS = Path(__file__).resolve().parents[1] / "conf"


def _checkpoints(value: object) -> list[str]:
    given = list(value) if isinstance(value, list | ListConfig) else [value]
    paths = [path for path in given if isinstance(path, str) and path]
    if not paths or len(set(paths)) < len(given):
        raise ConfigError("checkpoint", value, "a checkpoint's path, or a list of different ones: checkpoint=[A,B]")
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise ConfigError("checkpoint", missing[0], "a file that exists")
    return paths


def _output(value: object) -> Path:
    if not isinstance(value, str) or not value.endswith(".json"):
        raise ConfigError("output", value, "the path of the RD file to write, ending in .json")
    folder = next(parent for parent in Path(value).resolve().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError("output", value, f"a path in a folder that can be written; {folder} cannot")
    return Path(value)


def evaluate(cfg: DictConfig) -> int:
    """Run the evaluation that ``cfg`` (conf/evaluate.yaml) describes; 1 if any decoder missed the encoder's latents."""
    checkpoints = _checkpoints(cfg.checkpoint)
    output = _output(cfg.output)
    if not isinstance(cfg.threads, int | None):
        raise ConfigError("threads", cfg.threads, "null or a whole number from 1 up")
    device = pick_device(str(cfg.device))
    set_threads(cfg.threads)
    images = test_images(cfg.data)
    with progress_bar() as progress:
        task = progress.add_task("evaluate", total=len(checkpoints) * len(images), note="")

        def advance(row: ImageRow) -> None:
            progress.update(task, advance=1, note=f"{row.image} {row.bpp:.3f} bpp {row.psnr:.2f} dB")

        curve = evaluate_checkpoints(
            checkpoints, images, cfg.name or output.stem, cfg.description or "", device, advance
        )
    written = write_rd(output, curve)
    rd_table(curve).print()
    print("written:", *written)
    unequal = [f"{row['checkpoint']} {row['image']}" for row in curve.images if not row["latents_equal"]]
    if unequal:
        print(f"the decoder did not arrive at the encoder's latents: {', '.join(unequal)}")
    return 1 if unequal else 0


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_cli(lambda: evaluate(cfg))


if __name__ == "__main__":
    main()
