"""Evaluate checkpoints by way of real files: ``python -m src.evaluate checkpoint=[A.ckpt,B.ckpt] output=OUT.json``."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from jointiq.console import progress_bar
from jointiq.data import test_images
from jointiq.errors import ConfigError, run_cli
from jointiq.evaluation.measuring import Measured, worker_count
from jointiq.evaluation.pictures import PictureFolder
from jointiq.evaluation.rd import write_rd
from jointiq.evaluation.tables import rd_table
from jointiq.runtime import pick_device, set_threads
from jointiq.typed import checked, hydra_command

#: Timed runs by the key ``complexity``; None counts nothing.
COMPLEXITY = {"none": None, "count": 0, "measure": 3}


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
    return _writable("output", value)


def _writable(key: str, value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(key, value, "null or a path")
    folder = next(parent for parent in Path(value).resolve().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(key, value, f"a path in a folder that can be written; {folder} cannot")
    return Path(value)


def evaluate(cfg: DictConfig) -> int:
    """Run the evaluation that ``cfg`` (conf/evaluate.yaml) describes.

    Returns:
        1 if any decoder missed the encoder's latents or any image failed, else 0.
    """
    checkpoints = _checkpoints(cfg.checkpoint)
    output = _output(cfg.output)
    pictures = None if cfg.pictures is None else PictureFolder(_writable("pictures", cfg.pictures), output.parent)
    cache = output.parent / ".rows" if cfg.resume else None
    if not isinstance(cfg.threads, int | None):
        raise ConfigError("threads", cfg.threads, "null or a whole number from 1 up")
    for key in ("name", "description"):
        if not isinstance(cfg[key], str | None):
            raise ConfigError(key, cfg[key], f"null or a text; a number in quotes: '{key}=\"1\"'")
    if cfg.complexity not in COMPLEXITY:
        raise ConfigError("complexity", cfg.complexity, COMPLEXITY)
    repeats = COMPLEXITY[cfg.complexity]
    workers, images = worker_count(cfg.workers), test_images(cfg.data)
    # Imported late: what is refused above does not wait for PyTorch.
    from jointiq.evaluation.models import evaluate_checkpoints, with_complexity

    device = pick_device(str(cfg.device))
    set_threads(cfg.threads)
    reused = 0
    with progress_bar() as progress:
        task = progress.add_task("evaluate", total=len(checkpoints) * len(images), note="")

        def advance(done: Measured) -> None:
            nonlocal reused
            reused += done.reused
            row = done.row
            note = "failed" if row is None else f"{row['bpp']:.3f} bpp {row['psnr']:.2f} dB"
            progress.update(task, advance=1, note=f"{done.image} {note}")

        curve = evaluate_checkpoints(
            checkpoints, images, cfg.name or output.stem, cfg.description or "", str(device), advance, workers, cache,
            pictures,
        )  # fmt: skip
        if repeats is not None:
            counting = progress.add_task("complexity", total=len(checkpoints), note="")
            curve = with_complexity(
                curve, str(device), repeats, lambda note: progress.update(counting, advance=1, note=note)
            )
    written = write_rd(output, curve)
    rd_table(curve).print()
    if reused:
        print(f"taken from an earlier run: {reused} of {len(checkpoints) * len(images)} images")
    print("written:", *written)
    unequal = [f"{row['checkpoint']} {row['image']}" for row in curve.images if not row["latents_equal"]]
    if unequal:
        print(f"the decoder did not arrive at the encoder's latents: {', '.join(unequal)}")
    failed = curve.about.get("failed", [])
    for one in failed:
        print(f"failed, left out of every point: {one['image']} with {one['checkpoint']}: {one['problem']}")
    return 1 if unequal or failed else 0


@hydra_command("evaluate")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_cli(lambda: evaluate(checked("evaluate", cfg)))


if __name__ == "__main__":
    main()
