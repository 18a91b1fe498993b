"""A small folder of shipped models for tests, as ``python -m tools.ship`` would leave it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from jointiq.coding import shipped
from jointiq.coding.export import write_export
from jointiq.models.base import LearnedCodec


def make_folder(folder: Path, models: Mapping[int, LearnedCodec]) -> Path:
    """Write models by their quality, and the index, into ``folder``."""
    entries = []
    for quality, model in models.items():
        path = folder / f"q{quality}.safetensors"
        identity = write_export(model, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        entry = {"name": path.stem, "quality": quality, "file": path.name, "bytes": path.stat().st_size}
        entries.append({**entry, "sha256": sha256, "fingerprint": identity.hex()})
    index = {"format": shipped.FORMAT, "version": shipped.VERSION, "models": entries}
    (folder / shipped.INDEX).write_text(json.dumps(index))
    return folder
