"""Mutations of ``.jiq`` files: of their bytes, their headers and their segments."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jointiq.bitstream.container import Container, pack_varint

#: Makes a damaged file out of valid ones.
Mutation = Callable[[np.random.Generator, list[bytes]], bytes]


def flip_bits(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Flip one to eight bits."""
    data = bytearray(_pick(rng, files))
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def overwrite(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Overwrite a stretch with random, zero or 0xFF bytes."""
    data = bytearray(_pick(rng, files))
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, len(data) - start + 1))
    data[start : start + length] = _noise(rng, length)
    return bytes(data)


def truncate(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Keep the beginning of a file."""
    data = _pick(rng, files)
    return data[: int(rng.integers(len(data)))]


def extend(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Append bytes to a file."""
    return _pick(rng, files) + _noise(rng, int(rng.integers(1, 2000)))


def cut(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Take out a stretch of a file, or double it."""
    data = _pick(rng, files)
    start, end = sorted(rng.integers(len(data), size=2).tolist())
    return data[:start] + data[end:] if rng.integers(2) else data[:end] + data[start:]


def swap_segments(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Swap z and y, or take segments of another file."""
    one, other = Container.unpack(_pick(rng, files)), Container.unpack(_pick(rng, files))
    choices = ({"z": one.y, "y": one.z}, {"z": other.z}, {"y": other.y}, {"z": other.y, "y": other.z}, {"y": b""})
    return _repack(one, choices[int(rng.integers(len(choices)))])


def refill_segment(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Fill a segment with noise, zeros or 0xFF, up to 100 KB."""
    container = Container.unpack(_pick(rng, files))
    segment = _noise(rng, 4 * int(rng.integers(2, 10 ** int(rng.integers(1, 5)) * 2)))
    return _repack(container, {"y" if rng.integers(2) else "z": segment})


def lie_about_size(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Write another image size, up to absurd ones."""
    container = Container.unpack(_pick(rng, files))
    sizes = (0, 1, 2, 64, 65, 300, 4096, 8192, 1 << 20, 1 << 26, 1 << 31, 1 << 34)
    height, width = (sizes[int(rng.integers(len(sizes)))] for _ in range(2))
    keep = rng.integers(3)
    return _repack(
        container,
        {"height": height} if keep == 0 else {"width": width} if keep == 1 else {"height": height, "width": width},
    )


def replace_field(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Write another scan, fingerprint or checksum of the latents."""
    container = Container.unpack(_pick(rng, files))
    choices: tuple[dict[str, Any], ...] = (
        {"scan": int(rng.integers(256))},
        {"fingerprint": rng.bytes(4)},
        {"latents_crc": int(rng.integers(1 << 32))},
        {"fingerprint": Container.unpack(_pick(rng, files)).fingerprint},
    )
    return _repack(container, choices[int(rng.integers(len(choices)))])


def huge_numbers(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Write header numbers that are huge, or never end."""
    data = _pick(rng, files)
    numbers = [pack_varint(int(rng.integers(1, 1 << int(rng.integers(1, 63))))) for _ in range(4)]
    if rng.integers(2):
        numbers[int(rng.integers(4))] = b"\xff" * int(rng.integers(1, 40))
    return data[:9] + b"".join(numbers) + data[13:]


def foreign(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Write no ``.jiq`` file at all."""
    heads = (
        b"",
        b"J",
        b"JIQ",
        b"JIQ\x01",
        b"JIQ\x02",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        _pick(rng, files)[:9],
    )
    return heads[int(rng.integers(len(heads)))] + _noise(rng, int(rng.integers(0, 300)))


def splice(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Join the beginning of one file and the end of another."""
    one, other = _pick(rng, files), _pick(rng, files)
    return one[: int(rng.integers(len(one)))] + other[int(rng.integers(len(other))) :]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, overwrite, truncate, extend, cut, swap_segments,
    refill_segment, lie_about_size, replace_field, huge_numbers, foreign, splice,
)  # fmt: skip


def damaged_file(files: list[bytes], seed: int, index: int) -> bytes:
    """Return damaged file ``index`` of ``seed``; those with an odd index have a correct checksum again."""
    rng = np.random.default_rng((seed, index))
    while True:
        data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](rng, files)
        if index % 2 and len(data) >= 4:
            data = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")
        if data not in files:
            return data


def _pick(rng: np.random.Generator, files: list[bytes]) -> bytes:
    return files[int(rng.integers(len(files)))]


def _noise(rng: np.random.Generator, length: int) -> bytes:
    return (rng.bytes(length), bytes(length), b"\xff" * length)[int(rng.integers(3))]


def _repack(container: Container, changes: dict[str, Any]) -> bytes:
    return Container(**{**container.__dict__, **changes}).pack()
