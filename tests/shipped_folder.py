"""A small folder of shipped models for tests, as ``python -m tools.ship`` would leave it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from jointiq.coding import shipped
from jointiq.coding.export import write_export
from jointiq.models.base import LearnedCodec


def make_folder(folder: Path, models: Mapping[str, LearnedCodec]) -> Path:
    """Write models by their name, and the index, into ``folder``."""
    entries = []
    for name, model in models.items():
        path = folder / f"{name}.safetensors"
        identity = write_export(model, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        training = {"stages": [{"steps": 70}], "data": [{"name": "photos", "images": 3, "digest": "12345678"}]}
        entry = {"name": name, "file": path.name, "bytes": path.stat().st_size, "training": training}
        entries.append({**entry, "sha256": sha256, "fingerprint": identity.hex()})
    index = {"format": shipped.FORMAT, "version": shipped.VERSION, "models": entries}
    (folder / shipped.INDEX).write_text(json.dumps(index))
    return folder
