"""A training that takes seconds, for tests that need a whole one."""

from __future__ import annotations

import copy
import csv
from functools import cache
from pathlib import Path

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from jointiq.configs import CONFIGS, compose
from jointiq.data.images import write_png

#: Columns of metrics.csv that measure time.
CLOCKS = ("steps_per_second", "hours_left")

ROOT = CONFIGS.parent


def write_images(folder: Path) -> None:
    """Folders ``train`` (two images of 140x150) and ``val`` (65x70 and 66x64) of noise."""
    generator = torch.Generator().manual_seed(0)
    for name, size in (("train/a", (140, 150)), ("train/b", (140, 150)), ("val/c", (65, 70)), ("val/d", (66, 64))):
        noise = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
        write_png(folder / f"{name}.png", noise.numpy())


def overrides(images: Path, steps: int = 6) -> tuple[str, ...]:
    """The command line of a tiny training on :func:`write_images`' folders."""
    return (
        "+experiment=jointiq", "scale=demo", "model.N=4", "model.M=4", "enhancer.kernels=4", "data.batch_size=2",
        "data=folder", f"data.train_dir={images / 'train'}", f"data.val_dir={images / 'val'}", "trainer=cpu",
        f"trainer.max_steps={steps}", "trainer.max_time=null", "trainer.log_every_n_steps=1",
        "trainer.val_check_interval=3", "callbacks.checkpoint.every_steps=2", "callbacks.progress.style=off",
    )  # fmt: skip


def config(*texts: str) -> DictConfig:
    """The composed ``train`` config, a copy of one's own."""
    return copy.deepcopy(_composed(texts))


@cache
def _composed(texts: tuple[str, ...]) -> DictConfig:
    return compose("train", texts)


def changed(cfg: DictConfig, override: str) -> DictConfig:
    """A copy of a composed config with one more value, as Hydra reads it from the command line."""
    parsed, copied = OverridesParser.create().parse_override(override), copy.deepcopy(cfg)
    OmegaConf.update(copied, parsed.key_or_group, parsed.value(), force_add=parsed.is_add())
    return copied


def rows(folder: Path) -> list[dict[str, str]]:
    """What ``metrics.csv`` holds, without clocks and without rows of clocks alone."""
    with (folder / "metrics.csv").open(newline="") as stream:
        kept = [{k: v for k, v in row.items() if v and k not in CLOCKS} for row in csv.DictReader(stream)]
    return [row for row in kept if set(row) != {"step"}]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a run's last checkpoint."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
