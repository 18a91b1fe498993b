"""Measure real codecs: ``python -m src.anchors codecs=[jpeg,webp] data=folder data.test_dir=DIR output=DIR``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from jointiq.console import progress_bar
from jointiq.data import test_images
from jointiq.data.images import named_images
from jointiq.errors import ConfigError, run_cli
from jointiq.evaluation.codecs.anchors import Codec
from jointiq.evaluation.codecs.pillow import FAMILIES, Found, find_codecs
from jointiq.evaluation.codecs.programs import PROGRAMS
from jointiq.evaluation.codecs.run import run_anchors
from jointiq.evaluation.measuring import Measured, worker_count
from jointiq.evaluation.rd import read_rd
from jointiq.evaluation.tables import points_table
from jointiq.typed import checked, hydra_command


def _wanted(value: object) -> list[str]:
    names = list(value) if isinstance(value, list | ListConfig) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError("codecs", value, f"a list such as [jpeg,webp], of {', '.join(FAMILIES)}")
    return [str(name) for name in names]


def _folder(key: str, value: object, purpose: str) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(key, value, f"the folder for {purpose}: {key}=DIR")
    folder = Path(value).resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(key, value, f"a folder that can be written; {existing} cannot")
    return Path(value)


def _settings(codec: Codec, value: Any) -> tuple[float, ...]:
    if value is None:
        return codec.settings
    low, high = sorted((codec.low, codec.high))
    given: list[Any] = list(value) if isinstance(value, list | ListConfig) else [value]
    for setting in given:
        number = isinstance(setting, int | float) and not isinstance(setting, bool)
        if not number or not low <= setting <= high or (codec.step and setting != int(setting)):
            kind = "whole numbers" if codec.step else "numbers"
            raise ConfigError(f"settings.{codec.name}", setting, f"{kind} from {low:g} to {high:g} ({codec.knob})")
    if not given or len(set(given)) < len(given):
        raise ConfigError(f"settings.{codec.name}", given, "a list of different numbers")
    return tuple(given)


def anchors(cfg: DictConfig) -> int:
    """Run the codecs that ``cfg`` (conf/anchors.yaml) names; return 1 if any failed on an image, else 0."""
    programs = {key: cfg.programs[key] for key in PROGRAMS}
    for key, value in programs.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"programs.{key}", value, "null or a path")
    wanted, workers = _wanted(cfg.codecs), worker_count(cfg.workers)
    output = _folder("output", cfg.output, "the RD files")
    pictures = None if cfg.pictures is None else _folder("pictures", cfg.pictures, "the decoded pictures, or null")
    found: Found = find_codecs(wanted, programs)
    codecs = [(codec, _settings(codec, cfg.settings[codec.name])) for codec in found.codecs]
    images = named_images(test_images(cfg.data))
    for family, reason in found.absent.items():
        print(f"absent: {family}: {reason}")
    if not codecs:
        print("none of the codecs is there; nothing written")
        return 0
    total = sum(len(settings) for _, settings in codecs) * len(images)
    with progress_bar() as progress:
        task = progress.add_task("anchors", total=total, note="")

        def advance(done: Measured) -> None:
            progress.update(task, advance=1, note=f"{done.maker.name} {done.image}")

        run = run_anchors(codecs, images, output, workers, advance, pictures)
    if run.reused:
        print(f"taken from an earlier run: {run.reused} of {total} files")
    if run.files:
        curves = [read_rd(file) for file in run.files if file.suffix == ".json"]
        points_table(f"mean over {len(images)} images", curves).print()
        print("written:", *run.files)
    for failure in run.failures:
        print(f"failed: {failure}")
    return 1 if run.failures else 0


@hydra_command("anchors")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_cli(lambda: anchors(checked("anchors", cfg)))


if __name__ == "__main__":
    main()
