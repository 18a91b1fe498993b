"""Damaged ``.jiq`` files: their bytes, their headers and their segments."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jointiq.bitstream.container import Container, pack_varint
from jointiq.coding.image_codec import decode_latents, encode_image
from jointiq.errors import UserError
from tools.fuzzing.damage import OF_BYTES, Mutation, noise, pick
from tools.fuzzing.networks import SMALL, busy_model
from tools.fuzzing.worker import Case

CONFIGS: tuple[dict[str, Any], ...] = (
    SMALL,
    {"N": 6, "M": 8, "G": 1, "scan": "raster", "global_context": False, "mprm": False},
    {**SMALL, "scan": "quarters", "rates": "continuous"},
)
SIZES = ((1, 1), (17, 65), (70, 90))


def swap_segments(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Swap z and y, or take segments of another file."""
    one, other = Container.unpack(pick(rng, files)), Container.unpack(pick(rng, files))
    choices = ({"z": one.y, "y": one.z}, {"z": other.z}, {"y": other.y}, {"z": other.y, "y": other.z}, {"y": b""})
    return _repack(one, choices[int(rng.integers(len(choices)))])


def refill_segment(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Fill a segment with noise, zeros or 0xFF, up to 100 KB."""
    container = Container.unpack(pick(rng, files))
    segment = noise(rng, 4 * int(rng.integers(2, 10 ** int(rng.integers(1, 5)) * 2)))
    return _repack(container, {"y" if rng.integers(2) else "z": segment})


def lie_about_size(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Write another image size, up to absurd ones."""
    container = Container.unpack(pick(rng, files))
    sizes = (0, 1, 2, 64, 65, 300, 4096, 8192, 1 << 20, 1 << 26, 1 << 31, 1 << 34)
    height, width = (sizes[int(rng.integers(len(sizes)))] for _ in range(2))
    keep = rng.integers(3)
    return _repack(
        container,
        {"height": height} if keep == 0 else {"width": width} if keep == 1 else {"height": height, "width": width},
    )


def replace_field(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Write another scan, fingerprint or checksum of the latents."""
    container = Container.unpack(pick(rng, files))
    choices: tuple[dict[str, Any], ...] = (
        {"scan": int(rng.integers(256))},
        {"fingerprint": rng.bytes(4)},
        {"latents_crc": int(rng.integers(1 << 32))},
        {"fingerprint": Container.unpack(pick(rng, files)).fingerprint},
    )
    return _repack(container, choices[int(rng.integers(len(choices)))])


def huge_numbers(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Write header numbers that are huge, or never end."""
    data = pick(rng, files)
    numbers = [pack_varint(int(rng.integers(1, 1 << int(rng.integers(1, 63))))) for _ in range(4)]
    if rng.integers(2):
        numbers[int(rng.integers(4))] = b"\xff" * int(rng.integers(1, 40))
    return data[:9] + b"".join(numbers) + data[13:]


def foreign(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Write no ``.jiq`` file at all."""
    heads = (
        b"",
        b"J",
        b"JIQ",
        b"JIQ\x01",
        b"JIQ\x02",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        pick(rng, files)[:9],
    )
    return heads[int(rng.integers(len(heads)))] + noise(rng, int(rng.integers(0, 300)))


MUTATIONS: tuple[Mutation, ...] = (
    *OF_BYTES, swap_segments, refill_segment, lie_about_size, replace_field, huge_numbers, foreign,
)  # fmt: skip


def damaged_file(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """Return a damaged file; every other one has a correct checksum again, so that the decoder meets the damage."""
    while True:
        data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](rng, files)
        if rng.integers(2) and len(data) >= 4:
            data = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")
        if data not in files:
            return data


class Bitstreams:
    """Damaged ``.jiq`` files, which must end in an error or in the exact latents that were coded."""

    def __init__(self) -> None:
        self.models = [busy_model(config) for config in CONFIGS]
        self.files: list[bytes] = []
        self.known: set[str] = set()
        rng = np.random.default_rng(0)
        for model in self.models:
            for height, width in SIZES:
                image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
                encoded = encode_image(model, image, estimate=False)
                self.files.append(encoded.data)
                self.known.add(digest(encoded.latents))
            # The last, largest file: not all zero, or the damage would meet nothing.
            assert (encoded.latents["y"].abs() > 1).double().mean() > 0.05 and (encoded.latents["z"] != 0).any()

    def case(self, rng: np.random.Generator) -> Case:
        return Case("damaged.jiq", damaged_file(rng, self.files))

    def check(self, case: Case) -> None:
        decoded = 0
        for model in self.models:
            try:
                latents, _ = decode_latents(model, case.data)
            except UserError as error:
                refused = error
                continue
            decoded += 1
            assert digest(latents) in self.known, "wrong latents"
        if not decoded:
            raise refused


def digest(latents: dict[str, torch.Tensor]) -> str:
    """Return a hash of decoded latents."""
    return hashlib.sha256(b"".join(latent.numpy().tobytes() for latent in latents.values())).hexdigest()


def target(_folder: Path) -> Bitstreams:
    """Return the target of ``WHAT=bitstreams``."""
    return Bitstreams()


def _repack(container: Container, changes: dict[str, Any]) -> bytes:
    return Container(**{**container.__dict__, **changes}).pack()
