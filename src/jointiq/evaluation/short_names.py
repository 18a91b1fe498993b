"""Short names of files for tables, legends and pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the shortest ends of paths that tell them apart, without the last parts that all share.

    Args:
        paths: file names or any other texts; equal ones have one name.

    Returns:
        One name for each, in the same order: ``weights/q1.safetensors`` and ``weights/q2.safetensors`` become
        ``q1.safetensors`` and ``q2.safetensors``, ``RUN_A/checkpoints/last.ckpt`` and ``RUN_B/checkpoints/last.ckpt``
        become ``RUN_A`` and ``RUN_B``. A single path becomes the file's name.
    """
    parts = {path: PurePath(path).parts or (path,) for path in paths}
    length = 1
    while len({part[-length:] for part in parts.values()}) < len(set(parts.values())):
        length += 1
    ends = {path: part[-length:] for path, part in parts.items()}
    shared = 0
    # A name keeps at least its first part.
    while all(len(end) > shared + 1 for end in ends.values()) and len({end[-1 - shared] for end in ends.values()}) == 1:
        shared += 1
    return ["/".join(ends[path][: len(ends[path]) - shared]) for path in paths]
