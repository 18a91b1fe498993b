"""How a checkpoint was trained, from the folder of its run and those of the runs before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from jointiq.data import split_images
from jointiq.data.image_sets import ImageSet, folder_name, hashes, read_listed
from jointiq.data.prepared import MANIFEST
from jointiq.errors import DataError, UserError
from jointiq.files import FileFacts
from jointiq.models.jointiq import CONTINUOUS
from jointiq.runs.folder import CHECKPOINT, CONFIG, DONE, done_step, read_config, stage_folders, training_hours
from jointiq.training.validation import AUTO, NO_FILE, PCA, RATE_POINT_KEYS

#: Text for facts that are not recorded.
UNKNOWN = "not recorded"
_PROVENANCE = "provenance.json"
# Values of a command line that are paths on the machine of the training, and their placeholders.
_PLACES = {"init_from": "CKPT", "ckpt_path": "CKPT", "rerun": "RUN"}
_START = {None: "random weights", PCA: PCA, AUTO: f"{PCA} where the model allows it"}
_NO_PLACES = (PCA, AUTO, "null")
_DROPPED = ("paths.", "hydra.")
# Several trainings on the same images read them once.
_KNOWN = FileFacts()


@dataclass(frozen=True)
class Stage:
    """One run of the chain of trainings that made a checkpoint.

    Attributes:
        facts: its entry in an index, ready for JSON.
        data: its training images; None where they are gone.
        revision: commit of the source code, and whether it had uncommitted changes.
        device: the accelerator of the configuration.
    """

    facts: dict[str, Any]
    data: ImageSet | None
    revision: dict[str, Any]
    device: str


@dataclass(frozen=True)
class TrainingHistory:
    """All trainings of a checkpoint.

    Attributes:
        stages: the runs, the first one first.
        complete: whether the first one did not start from another run, so that ``steps`` counts all.
    """

    stages: tuple[Stage, ...]
    complete: bool

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.facts["steps"] for stage in self.stages)

    @property
    def images(self) -> tuple[ImageSet, ...]:
        """The sets that were trained on, each once."""
        found = {stage.data.digest: stage.data for stage in self.stages if stage.data is not None}
        return tuple(found.values())


def read_history(checkpoint: Path, train_name: str | None = None) -> TrainingHistory:
    """Read the runs of a checkpoint, back through ``init_from`` as far as their folders exist.

    Args:
        checkpoint: of ``src.train``, in its run's folder.
        train_name: name of the training images; None: that of their manifest, or of their folder.

    Raises:
        UserError: the checkpoint does not lie in the folder of a run.
    """
    stages: list[Stage] = []
    seen: set[Path] = set()
    at: Path | None = checkpoint
    while at is not None and at.resolve() not in seen:
        seen.add(at.resolve())
        folder = _folder(at)
        if folder is None:
            if not stages:
                raise UserError(f"{checkpoint}: no {CONFIG} of src.train above it; allowed: a checkpoint in its run")
            break
        cfg = read_config(folder)
        stages.append(_stage(at, folder, cfg, train_name))
        at = None if cfg.init_from in NO_FILE else Path(cfg.init_from)
    return TrainingHistory(tuple(reversed(stages)), complete=at is None)


def _folder(checkpoint: Path) -> Path | None:
    """Return the folder of a checkpoint's run (of a staged run, its last stage), or None."""
    folder = checkpoint.parent.parent
    stages = [path for path in stage_folders(folder) if (path / CONFIG).is_file()]
    if stages:
        return stages[-1]
    return folder if (folder / CONFIG).is_file() else None


def _stage(checkpoint: Path, folder: Path, cfg: DictConfig, train_name: str | None) -> Stage:
    made = json.loads((folder / _PROVENANCE).read_text(encoding="utf-8")) if (folder / _PROVENANCE).is_file() else {}
    data = _images(cfg.data, train_name)
    facts = {
        "experiment": cfg.experiment_name,
        "scale": cfg.scale.name,
        "stage": cfg.stage.name,
        "start": _START.get(cfg.init_from, "the stage before"),
        "distortion": cfg.distortion.name,
        "lambdas": list(cfg.distortion.lmbda_range) if cfg.model.get("rates") == CONTINUOUS else [cfg.lmbda],
        "seed": cfg.seed,
        "steps": _steps(checkpoint, folder),
        "batch_size": cfg.data.batch_size,
        "crop": cfg.data.crop,
        "lr": cfg.optim.lr,
        "hours": training_hours(folder),
        "precision": str(cfg.trainer.precision),
        "data": None if data is None else str(data),
        "command": public_command(_with_sizes(made.get("command", ()), cfg)),
    }
    accelerator = str(cfg.trainer.accelerator)
    return Stage(facts, data, made.get("git", {}), UNKNOWN if accelerator == "auto" else accelerator)


def _steps(checkpoint: Path, folder: Path) -> int:
    """Return the optimizer steps of one run, from its checkpoint or, where that is gone, from its end mark.

    Raises:
        UserError: neither exists.
    """
    if checkpoint.is_file():
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    if (folder / DONE).is_file():
        return done_step(folder)
    raise UserError(f"{folder}: neither {CHECKPOINT} nor {DONE}, so the steps of this training are not known")


def _images(data: DictConfig, train_name: str | None) -> ImageSet | None:
    """Return the training images of a ``data`` config, from their manifests or else by reading them."""
    if data.name == "sample":
        return _read("sample photographs", data)
    folders = [Path(at) for at in (data.train_dir if isinstance(data.train_dir, ListConfig) else [data.train_dir])]
    lists = [at / MANIFEST if data.name == "prepared" else at.with_name(f"{at.name}.json") for at in folders]
    listed = [images for images in map(read_listed, lists) if images]
    if len(listed) == len(lists):
        name = train_name or "+".join(one.name for one in listed)
        paths = tuple(path for one in listed for path in one.paths)
        return ImageSet(name, paths, tuple(digest for one in listed for digest in one.hashes))
    if data.name == "folder":
        return _read(train_name or "+".join(map(folder_name, folders)), data)
    return None


def _read(name: str, data: DictConfig) -> ImageSet | None:
    try:
        paths = tuple(split_images(data, "train"))
    except DataError:
        return None
    return ImageSet(name, paths, tuple(hashes(paths, _KNOWN, "look at training images")))


def _with_sizes(command: Sequence[str], cfg: DictConfig) -> list[str]:
    """Return the command line with the sizes that it left to a scale or table, whose values may change later."""
    if not command:
        return []
    typed = {word.partition("=")[0] for word in command}
    values = {key: OmegaConf.select(cfg, key) for key in RATE_POINT_KEYS if key not in typed}
    return [*command, *(f"{key}={value}" for key, value in values.items() if value is not None)]


def public_command(command: Sequence[str]) -> str:
    """Return a command line of ``src.train`` with placeholders for paths; of a key typed twice, the last value."""
    words = {}
    for word in command:
        key, equals, value = word.partition("=")
        if key.startswith(_DROPPED):
            continue
        if key.endswith("_dir") and equals:
            value = "DIR"
        elif key in _PLACES and value not in _NO_PLACES:
            value = _PLACES[key]
        elif value.startswith(("/", "~", "..")):
            value = "PATH"
        words[key] = f"{key}{equals}{value}"
    return " ".join(words.values())
