"""Damage of any file: of its bytes, or of the values in a document (JSON, YAML)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Makes a damaged file out of valid ones.
Mutation = Callable[[np.random.Generator, Sequence[bytes]], bytes]

#: Values that no document of ours holds.
_WRONG: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, 1e308, -1e-308, 10**30, -(10**400), math.nan, math.inf, -math.inf, "", "a", "\n",
    "\0",
    "[/b]", "$\\frac{1}{0$", "<script>|", "\ud800", "../../x", "/", "-", "1", "nan", "x" * 5000, [], {}, [None], [[]],
    {"": 0}, [1, "a"], {"a": {"b": [1]}},
)  # fmt: skip


def flip_bits(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Flip one to eight bits."""
    data = bytearray(pick(rng, files))
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def overwrite(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Overwrite a stretch with random, zero or 0xFF bytes."""
    data = bytearray(pick(rng, files))
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, len(data) - start + 1))
    data[start : start + length] = noise(rng, length)
    return bytes(data)


def truncate(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Keep the beginning of a file."""
    data = pick(rng, files)
    return data[: int(rng.integers(len(data)))]


def extend(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Append bytes to a file."""
    return pick(rng, files) + noise(rng, int(rng.integers(1, 2000)))


def cut(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Take out a stretch of a file, or double it."""
    data = pick(rng, files)
    start, end = sorted(rng.integers(len(data), size=2).tolist())
    return data[:start] + data[end:] if rng.integers(2) else data[:end] + data[start:]


def splice(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Join the beginning of one file and the end of another."""
    one, other = pick(rng, files), pick(rng, files)
    return one[: int(rng.integers(len(one)))] + other[int(rng.integers(len(other))) :]


#: Damage that needs no knowledge of the format.
OF_BYTES: tuple[Mutation, ...] = (flip_bits, overwrite, truncate, extend, cut, splice)


def damage_bytes(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Damage the bytes of one of the files."""
    return OF_BYTES[int(rng.integers(len(OF_BYTES)))](rng, files)


def damage_values(rng: np.random.Generator, document: Any) -> Any:
    """Return a copy of a document with one to three values replaced, taken out, doubled or renamed."""
    document = copy.deepcopy(document)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(document))
        if not places:
            return wrong(rng)
        inside, key = places[int(rng.integers(len(places)))]
        kind = int(rng.integers(6))
        if kind == 0:
            del inside[key]
        elif kind == 1 and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        elif kind == 1:
            inside[str(wrong(rng))] = inside.pop(key)
        else:
            inside[key] = wrong(rng)
    return document


def wrong(rng: np.random.Generator) -> Any:
    """Return a value that is wrong nearly everywhere."""
    return copy.deepcopy(_WRONG[int(rng.integers(len(_WRONG)))])


def _places(document: Any) -> list[tuple[Any, Any]]:
    """List every value in a document: what holds it, and its key."""
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for key, value in inside for place in ((document, key), *_places(value))]


def pick(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Return one of the files."""
    return files[int(rng.integers(len(files)))]


def noise(rng: np.random.Generator, length: int) -> bytes:
    """Return random, zero or 0xFF bytes."""
    return (rng.bytes(length), bytes(length), b"\xff" * length)[int(rng.integers(3))]
