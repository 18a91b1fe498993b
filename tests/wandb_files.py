"""What the files of an offline W&B run hold."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Recorded:
    """What a run's file holds."""

    id: str = ""
    group: str = ""
    name: str = ""
    job: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


def records(path: Path) -> Iterator[Any]:
    """Records of a ``.wandb`` file: LevelDB's log format (blocks of 32 KiB) of W&B's protocol buffers.

    wandb itself has no public reader any more (its last one left with the Python service).
    """
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0 or position + 7 + length > len(data):
            break
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def read(folder: Path) -> list[Recorded]:
    """The offline runs in a run's folder, oldest first."""
    return [_read(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def _read(path: Path) -> Recorded:
    # wandb's service writes the last of a file some moments after a run's `finish` has returned.
    deadline = time.monotonic() + 20
    while not any(record.WhichOneof("record_type") == "exit" for record in records(path)):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.1)
    recorded = Recorded()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            recorded.id, recorded.group = record.run.run_id, record.run.run_group
            recorded.name, recorded.job = record.run.display_name, record.run.job_type
            recorded.tags = list(record.run.tags)
            recorded.config |= _values(record.run.config.update)
        elif kind == "config":
            recorded.config |= _values(record.config.update)
        elif kind == "history":
            recorded.rows.append(_values(record.history.item))
        elif kind == "summary":
            recorded.summary |= _values(record.summary.update)
        elif kind == "exit":
            recorded.finished = record.exit.exit_code == 0
    return recorded


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def table(folder: Path, path: str) -> list[dict[str, Any]]:
    """Rows of the table whose ``path`` a run has logged, of the one offline run in a folder."""
    (file,) = folder.glob(f"wandb/offline-run-*/files/{path}")
    content = json.loads(file.read_text())
    return [dict(zip(content["columns"], line, strict=True)) for line in content["data"]]
