"""Make the folder of shipped models from training checkpoints: export, measure, list, describe, rename."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jointiq.coding import EXPORT, shipped
from jointiq.coding.export import write_export
from jointiq.coding.load import load_model
from jointiq.console import Table
from jointiq.data.image_sets import ImageSet, read_set, refuse_trained
from jointiq.errors import UserError
from jointiq.evaluation.stopwatch import device_text
from jointiq.files import write_text
from tools.shipping.card import CARD, filled, read_card
from tools.shipping.ship_measurements import Curve, loses_nothing, measure_exports, refuse_disorder
from tools.shipping.training_facts import TrainingHistory, read_history

LIMIT_MB = 40
FULL, HALF = "float32", "float16"


@dataclass(frozen=True)
class Options:
    """The options of ``python -m tools.ship``.

    Attributes:
        checkpoints: of ``src.train``, models of all rates; the first is the default of the codec.
        test: the test images, ``DIR`` or ``NAME=DIR``.
        output: the folder of shipped models.
        results: folder that keeps measurements, and the hashes of the test images.
        train_name: name of the training images; None: that of their folder.
        trained_on: device of the trainings, as text; None: as in their configurations.
        half: try 16-bit transforms, and ship those that lose nothing.
        device: device of the networks, as torch names it.
        workers: number of processes that measure.
    """

    checkpoints: tuple[Path, ...]
    test: str
    output: Path
    results: Path
    train_name: str | None = None
    trained_on: str | None = None
    half: bool = False
    device: str = "cpu"
    workers: int = 1


@dataclass(frozen=True)
class Candidate:
    """A model to be shipped: its training, its number of weights, and its export in each precision."""

    name: str
    training: TrainingHistory
    config: Mapping[str, Any]
    parameters: int
    files: Mapping[str, Path]
    fingerprints: Mapping[str, bytes]


def ship(options: Options) -> list[Path]:
    """Make the folder of shipped models and return its files.

    Nothing in the folder is touched before everything is measured and written; then the files are renamed into it, the
    index last.

    Raises:
        UserError: a checkpoint, image or card that cannot be used, a test image that was trained on, more than
            :data:`LIMIT_MB`, models that are not in the order of quality, or a folder that cannot be written.
    """
    missing = [path for path in options.checkpoints if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such checkpoint")
    card = read_card(options.output, shipped.WEIGHTS)
    images = read_set([options.test], options.results / "images")
    trainings = [read_history(path, options.train_name) for path in options.checkpoints]
    for train in (train for training in trainings for train in training.images):
        refuse_trained(images, train)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{options.output.name}.", dir=options.output.parent) as temporary:
        work = Path(temporary)
        candidates = [
            _export(path, training, work, options.half)
            for path, training in zip(options.checkpoints, trainings, strict=True)
        ]
        _refuse_equal_names([one.name for one in candidates])
        _refuse_size([min(file.stat().st_size for file in one.files.values()) for one in candidates])
        files = [file for one in candidates for file in one.files.values()]
        measured = measure_exports(files, images.paths, options.device, options.workers, options.results / "rows")
        chosen = [_choice(one, measured) for one in candidates]
        for one, which in zip(candidates, chosen, strict=True):
            refuse_disorder(one.name, measured[one.files[which]])
        _refuse_size([one.files[which].stat().st_size for one, which in zip(candidates, chosen, strict=True)])
        entries = [_entry(*pair, measured, options) for pair in zip(candidates, chosen, strict=True)]
        _refuse_equal_fingerprints(entries)
        index = _index(entries, images, options)
        write_text(work / CARD, filled(card, index))
        write_text(work / shipped.INDEX, json.dumps(index, indent=1, allow_nan=False) + "\n")
        new = {one.files[which].name: one.files[which] for one, which in zip(candidates, chosen, strict=True)}
        new |= {CARD: work / CARD, shipped.INDEX: work / shipped.INDEX}
        return _swap(new, options.output)


def summary(index: Path) -> Table:
    """Return a table of the models of an index, for the terminal."""
    models = json.loads(index.read_text(encoding="utf-8"))["models"]
    table = Table("shipped models", ("model", "quality", "bpp", "PSNR dB", "steps", "MB", "transforms"))
    for model in models:
        about = (str(model["training"]["steps"]), f"{model['bytes'] / 1e6:.2f}", model["transforms"])
        for point in model["measured"]:
            numbers = (f"{point['quality']:g}", f"{point['bpp']:.4f}", f"{point['psnr']:.3f}")
            table.rows.append((model["name"], *numbers, *about))
    return table


def _export(checkpoint: Path, training: TrainingHistory, work: Path, half: bool) -> Candidate:
    model = load_model(checkpoint)
    if model.quality is None:
        raise UserError(f"{checkpoint}: a model of one rate; allowed: of all rates (model.rates=continuous)")
    last = training.stages[-1].facts
    name = f"{model.config['name']}-{last['distortion'].replace('_', '-')}"
    notes = {"name": name, "training_data": last["data"] or "not recorded"}
    precisions = (FULL, HALF) if half else (FULL,)
    files = {precision: work / precision / f"{name}{EXPORT}" for precision in precisions}
    fingerprints = {key: write_export(model, file, half=key == HALF, **notes) for key, file in files.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Candidate(name, training, model.config, parameters, files, fingerprints)


def _choice(one: Candidate, measured: Mapping[Path, Curve]) -> str:
    """Return the precision to ship."""
    if HALF not in one.files:
        return FULL
    return HALF if loses_nothing(measured[one.files[HALF]], measured[one.files[FULL]]) else FULL


def _entry(one: Candidate, which: str, measured: Mapping[Path, Curve], options: Options) -> dict[str, Any]:
    """Return the entry of a model in the index."""
    file, training = one.files[which], one.training
    data = file.read_bytes()
    last = training.stages[-1]
    return {
        "name": one.name,
        "file": file.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "fingerprint": one.fingerprints[which].hex(),
        "transforms": which,
        "experiment": last.facts["experiment"],
        "scale": last.facts["scale"],
        "N": one.config.get("N"),
        "M": one.config.get("M"),
        "parameters": one.parameters,
        "training": {
            "steps": training.steps,
            "complete": training.complete,
            "data": [_image_set(images) for images in training.images],
            "device": options.trained_on or last.device,
            "revision": last.revision.get("revision"),
            "uncommitted_changes": last.revision.get("uncommitted_changes"),
            "stages": [stage.facts for stage in training.stages],
        },
        "measured": [point.as_dict() for point in measured[file]],
        "by_transforms": {key: [point.as_dict() for point in measured[path]] for key, path in one.files.items()},
    }


def _index(entries: Sequence[Mapping[str, Any]], images: ImageSet, options: Options) -> dict[str, Any]:
    listed = ",".join(f"weights/{entry['file']}" for entry in entries)
    # Those times come again only with as many threads and processes.
    pace = f"threads={torch.get_num_threads()} workers={options.workers}"
    return {
        "format": shipped.FORMAT,
        "version": shipped.VERSION,
        "test": {
            **_image_set(images),
            "device": device_text(options.device),
            "workers": options.workers,
            "command": f"python -m src.evaluate checkpoint=[{listed}] data=folder data.test_dir=DIR {pace} "
            "output=OUT.json",
        },
        "models": list(entries),
    }


def _image_set(images: ImageSet) -> dict[str, Any]:
    return {"name": images.name, "images": len(images.hashes), "digest": images.digest}


def _refuse_size(sizes: Sequence[int]) -> None:
    total = sum(sizes) / 1e6
    if total > LIMIT_MB:
        raise UserError(f"the models take {total:.1f} MB; allowed: {LIMIT_MB} MB in all (--half, or smaller N and M)")


def _refuse_equal_fingerprints(entries: Sequence[Mapping[str, Any]]) -> None:
    """Refuse models that a file could not tell apart; it holds the first four bytes of the fingerprint."""
    starts = [entry["fingerprint"][:8] for entry in entries]
    if len(set(starts)) < len(starts):
        raise UserError("two of the checkpoints hold models of the same fingerprint; allowed: different models")


def _refuse_equal_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise UserError(f"several of the checkpoints hold a {names[0]}; allowed: one of each name and distortion")


def _swap(new: Mapping[str, Path], output: Path) -> list[Path]:
    """Rename finished files into the folder, in the given order; all lie on its disk already. Remove earlier models."""
    try:
        output.mkdir(exist_ok=True)
        written = [path.replace(output / name) for name, path in new.items()]
        for path in output.glob(f"*{EXPORT}"):
            if path not in written:
                path.unlink()
        return written
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
