"""Decode damaged ``.jiq`` files: each must end in a clean error or in the latents that were coded.

    python -m src.fuzz --count 10000 --seed 1

Half of the damaged files get their checksums recomputed, so that the decoder itself meets the damage. They are decoded
in a worker process under caps of time and memory; if it crashes or hangs, that counts as a failure and a new one goes
on. What fails is kept in ``results/fuzz`` and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import resource
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from src.bitstream.container import Container, pack_varint
from src.errors import ConfigError, UserError, run_cli
from src.files import write_bytes
from src.models import build_model
from src.models.image_codec import decode_latents, encode_image
from src.models.jointiq import JointIQNet

FAILURES = Path("results/fuzz")
# For one file, in seconds (a valid one takes a few hundredths) and bytes beyond what the loaded worker holds.
TIME_LIMIT = 60.0
MEMORY_LIMIT = 2 << 30

CONFIGS: tuple[dict[str, Any], ...] = (
    {"N": 6, "M": 8, "min_known": 8},
    {"N": 6, "M": 8, "G": 1, "scan": "raster", "global_context": False, "mprm": False},
)
SIZES = ((1, 1), (17, 65), (70, 90))
CLEAN = ("error", "exact")

Mutation = Callable[[np.random.Generator, list[bytes]], bytes]


def busy_model(config: dict[str, Any]) -> JointIQNet:
    """A small random model, scaled so that its latents are not all zero."""
    torch.manual_seed(0)
    model = build_model({"name": "jointiq", **config}).eval()
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        for layer, name in ((model.g_a.convs[-1], "y"), (model.h_a.convs[-1], "z")):
            layer.weight.mul_(3 / model.analyse(x)[name].std())
        model.z_prior.log_sigma.fill_(math.log(3))
        model.estimator.preliminary.bias[-model.G * model.config["M"] :] += math.log(3)
        if model.global_context is not None:
            model.global_context.psi.normal_(0, 2)
    return model


def digest(latents: dict[str, torch.Tensor]) -> str:
    """Identity of decoded latents."""
    return hashlib.sha256(b"".join(latent.numpy().tobytes() for latent in latents.values())).hexdigest()


# --- damage -----------------------------------------------------------------------------------------------------------


def flip_bits(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """One to eight flipped bits."""
    data = bytearray(_pick(rng, files))
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def overwrite(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """A stretch of random, zero or 0xFF bytes in place of what was there."""
    data = bytearray(_pick(rng, files))
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, len(data) - start + 1))
    data[start : start + length] = _noise(rng, length)
    return bytes(data)


def truncate(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """The beginning of a file."""
    data = _pick(rng, files)
    return data[: int(rng.integers(len(data)))]


def extend(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """A file and more."""
    return _pick(rng, files) + _noise(rng, int(rng.integers(1, 2000)))


def cut(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """A file with a stretch taken out or doubled."""
    data = _pick(rng, files)
    start, end = sorted(rng.integers(len(data), size=2).tolist())
    return data[:start] + data[end:] if rng.integers(2) else data[:end] + data[start:]


def swap_segments(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """z for y, or segments of another file."""
    one, other = Container.unpack(_pick(rng, files)), Container.unpack(_pick(rng, files))
    choices = ({"z": one.y, "y": one.z}, {"z": other.z}, {"y": other.y}, {"z": other.y, "y": other.z}, {"y": b""})
    return _repack(one, choices[int(rng.integers(len(choices)))])


def refill_segment(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """A segment of noise, zeros or 0xFF, up to 100 KB."""
    container = Container.unpack(_pick(rng, files))
    segment = _noise(rng, 4 * int(rng.integers(2, 10 ** int(rng.integers(1, 5)) * 2)))
    return _repack(container, {"y" if rng.integers(2) else "z": segment})


def lie_about_size(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Another image size, up to absurd ones."""
    container = Container.unpack(_pick(rng, files))
    sizes = (0, 1, 2, 64, 65, 300, 4096, 8192, 1 << 20, 1 << 26, 1 << 31, 1 << 34)
    height, width = (sizes[int(rng.integers(len(sizes)))] for _ in range(2))
    keep = rng.integers(3)
    return _repack(
        container,
        {"height": height} if keep == 0 else {"width": width} if keep == 1 else {"height": height, "width": width},
    )


def replace_field(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Another scan, fingerprint or checksum of the latents."""
    container = Container.unpack(_pick(rng, files))
    choices: tuple[dict[str, Any], ...] = (
        {"scan": int(rng.integers(256))},
        {"fingerprint": rng.bytes(4)},
        {"latents_crc": int(rng.integers(1 << 32))},
        {"fingerprint": Container.unpack(_pick(rng, files)).fingerprint},
    )
    return _repack(container, choices[int(rng.integers(len(choices)))])


def huge_numbers(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Header numbers that are huge, or never end."""
    data = _pick(rng, files)
    numbers = [pack_varint(int(rng.integers(1, 1 << int(rng.integers(1, 63))))) for _ in range(4)]
    if rng.integers(2):
        numbers[int(rng.integers(4))] = b"\xff" * int(rng.integers(1, 40))
    return data[:9] + b"".join(numbers) + data[13:]


def foreign(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Something else altogether."""
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
    """The beginning of one file and the end of another."""
    one, other = _pick(rng, files), _pick(rng, files)
    return one[: int(rng.integers(len(one)))] + other[int(rng.integers(len(other))) :]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, overwrite, truncate, extend, cut, swap_segments,
    refill_segment, lie_about_size, replace_field, huge_numbers, foreign, splice,
)  # fmt: skip


def damaged_file(files: list[bytes], seed: int, index: int) -> bytes:
    """Number ``index`` of the damaged files of ``seed``; those with an odd number have a correct checksum again."""
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


# --- decoding under caps ----------------------------------------------------------------------------------------------


def work(connection: Connection) -> None:
    """The worker: sends its valid files, then answers each file with ``error``, ``exact`` or what went wrong."""
    torch.set_num_threads(1)
    models = [busy_model(config) for config in CONFIGS]
    rng = np.random.default_rng(0)
    files, known = [], set()
    for model in models:
        for height, width in SIZES:
            image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            encoded = encode_image(model, image, estimate=False)
            files.append(encoded.data)
            known.add(digest(encoded.latents))
        # The last, largest file: not all zero, or the damage would meet nothing.
        assert (encoded.latents["y"].abs() > 1).double().mean() > 0.05 and (encoded.latents["z"] != 0).any()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send(files)
    while (data := connection.recv()) is not None:
        outcomes = {_outcome(model, data, known) for model in models}
        connection.send(next((outcome for outcome in outcomes if outcome not in CLEAN), max(outcomes)))


def _outcome(model: JointIQNet, data: bytes, known: set[str]) -> str:
    try:
        latents, _ = decode_latents(model, data)
    except UserError:
        return "error"
    except Exception as error:  # noqa: BLE001  (anything else is what is looked for)
        return f"{type(error).__name__}: {error}"
    return "exact" if digest(latents) in known else "wrong latents"


class Worker:
    """A worker process; ``files`` are the valid files it can decode."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.files: list[bytes] = self._connection.recv()

    def decode(self, data: bytes) -> str:
        """What became of one file: one of ``CLEAN``, or a failure in words."""
        try:
            self._connection.send(data)
            if not self._connection.poll(TIME_LIMIT):
                return f"hang: no answer in {TIME_LIMIT:.0f} s"
            outcome: str = self._connection.recv()
            return outcome
        except (EOFError, OSError):
            self._process.join(5)
            return f"crash: exit code {self._process.exitcode}"

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def fuzz(count: int, seed: int) -> Iterator[tuple[int, bytes, str]]:
    """Decode ``count`` damaged files: (number, file, outcome) of each."""
    worker = Worker()
    try:
        for index in range(count):
            data = damaged_file(worker.files, seed, index)
            outcome = worker.decode(data)
            yield index, data, outcome
            if outcome.startswith(("hang", "crash")):
                worker.stop()
                worker = Worker()
    finally:
        worker.stop()


def main() -> int:
    """Command line of ``python -m src.fuzz``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m src.fuzz",
        description="Decode damaged .jiq files; each must give an error or the exact latents.",
    )
    parser.add_argument("--count", type=int, default=10_000, help="how many files (default 10000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other files (default 1)")
    arguments = parser.parse_args()
    for key, smallest in (("count", 1), ("seed", 0)):
        if getattr(arguments, key) < smallest:
            raise ConfigError(key, getattr(arguments, key), f"a whole number from {smallest} up")
    console = Console(stderr=True)
    outcomes: Counter[str] = Counter()
    steps = fuzz(arguments.count, arguments.seed)
    for index, data, outcome in track(steps, "decoding damaged files", arguments.count, console=console):
        outcomes[outcome if outcome in CLEAN else "failed"] += 1
        if outcome not in CLEAN:
            path = FAILURES / f"seed{arguments.seed}-{index}.jiq"
            write_bytes(path, data)
            console.print(f"{path}: {outcome}", highlight=False, soft_wrap=True)
    print(
        f"{arguments.count} damaged files (seed {arguments.seed}): {outcomes['error']} clean errors, "
        f"{outcomes['exact']} with the exact latents, {outcomes['failed']} failures"
    )
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    run_cli(main)
