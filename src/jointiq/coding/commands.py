"""Encode, decode, verify and describe files; whole folders with progress and a summary."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jointiq.bitstream.container import VERSION, Container
from jointiq.bitstream.scan import scan_name
from jointiq.coding.choose import DecoderModels, encoder_model
from jointiq.coding.shipped import of_fingerprint
from jointiq.data.images import list_images, read_image, write_png
from jointiq.errors import EXIT_USER_ERROR, BitstreamError, DataError, ModelError, UserError
from jointiq.files import write_bytes
from jointiq.runtime import set_threads

# The models are imported late: `info`, and mistakes that show before a model is needed, do not wait for PyTorch.
if TYPE_CHECKING:
    from jointiq.coding.image_codec import Encoded, Image
    from jointiq.models.base import LearnedCodec

CODED, PICTURE = ".jiq", ".png"


def encode(arguments: Namespace) -> int:
    """Images to ``.jiq`` files."""
    jobs = plan(arguments.input, arguments.output, CODED, lambda folder: list_images(folder))
    model = _encoder(arguments)
    from jointiq.coding.image_codec import encode_image

    totals = {"bytes": 0, "pixels": 0}

    def one(source: Path, target: Path) -> str:
        image = read_image(source)
        with _about(source):
            encoded = encode_image(model, image, estimate=False)
        write_bytes(target, encoded.data)
        size, pixels = len(encoded.data), image.shape[0] * image.shape[1]
        totals["bytes"] += size
        totals["pixels"] += pixels
        return f"{source} -> {target}: {size} bytes, {8 * size / pixels:.4f} bpp, {encoded.seconds:.2f} s"

    code = _run_all(jobs, one, "encoding")
    if len(jobs) > 1 and totals["pixels"]:
        rate = 8 * totals["bytes"] / totals["pixels"]
        print(f"total: {totals['bytes']} bytes, {rate:.4f} bpp over {totals['pixels'] / 1e6:.2f} megapixels")
    return code


def decode(arguments: Namespace) -> int:
    """``.jiq`` files to PNG."""
    jobs = plan(arguments.input, arguments.output, PICTURE, _list_coded)
    set_threads(arguments.threads)
    models = DecoderModels(arguments.checkpoint, arguments.device)
    from jointiq.coding.image_codec import decode_image

    def one(source: Path, target: Path) -> str:
        with _about(source):
            data = _read_file(source)
            decoded = decode_image(models.of(data), data)
        write_png(target, decoded.image)
        height, width, _ = decoded.image.shape
        return f"{source} -> {target}: {width}x{height}, {decoded.seconds:.2f} s"

    return _run_all(jobs, one, "decoding")


def verify(arguments: Namespace, psnr: Callable[[Image, Image], float]) -> int:
    """Encode and decode in memory; the latents and the picture must come back as the encoder had them.

    Args:
        psnr: quality in dB of a decoded picture against its original, both uint8 (H, W, 3).
    """
    path = Path(arguments.input)
    jobs = [(image, image) for image in (list_images(path) if path.is_dir() else [path])]
    model = _encoder(arguments)
    from jointiq.coding.image_codec import decode_image, encode_image, same_latents

    def one(source: Path, _target: Path) -> str:
        image = read_image(source)
        encoded = encode_image(model, image)
        decoded = decode_image(model, encoded.data)
        if not same_latents(encoded, decoded):
            raise UserError(f"{source}: the decoded latents differ from the coded ones")
        return (
            f"{source}: latents exact; {len(encoded.data)} bytes, {8 * len(encoded.data) / (image.size / 3):.4f} bpp; "
            f"{_ratios(encoded)}; PSNR {psnr(image, decoded.image):.2f} dB"
        )

    return _run_all(jobs, one, "verifying")


def _ratios(encoded: Encoded) -> str:
    """How the file compares with the estimate, step by step where the coder works on integers."""
    assert encoded.estimated_bits is not None
    payload, estimate = 8 * encoded.payload_bytes, max(sum(encoded.estimated_bits.values()), 1e-9)
    if encoded.exact_bits is None:
        return f"payload / float bits {payload / estimate:.5f}"
    exact = max(sum(encoded.exact_bits.values()), 1e-9)
    return f"integer / float bits {exact / estimate:.5f}; payload / integer bits {payload / exact:.5f}"


def info(arguments: Namespace) -> int:
    """Everything the header of a ``.jiq`` file says."""
    data = _read_file(Path(arguments.input))
    with _about(arguments.input):
        container = Container.unpack(data)
    pixels = container.height * container.width
    rows = {
        "file": f"{arguments.input}, {len(data)} bytes, {8 * len(data) / pixels:.4f} bpp, checksum correct",
        "format version": VERSION,
        "model fingerprint": container.fingerprint.hex(),
        "shipped model": _shipped_name(container.fingerprint),
        "image": f"{container.width}x{container.height} pixels",
        "scan": scan_name(container.scan),
        "segment z": f"{len(container.z)} bytes",
        "segment y": f"{len(container.y)} bytes",
        "header": f"{len(data) - container.payload_bytes} bytes, with the checksums",
        "latents CRC-32": f"{container.latents_crc:08x}",
    }
    for key, value in rows.items():
        print(f"{key:18} {value}")
    return 0


def _shipped_name(start: bytes) -> str:
    """The shipped model whose fingerprint starts so; what a header says does not depend on the shipped models."""
    try:
        model = of_fingerprint(start)
    except ModelError as error:
        return f"unknown ({error})"
    return "none" if model is None else f"{model.name} (--quality {model.quality})"


def plan(source: str, target: str, suffix: str, list_folder: Callable[[Path], list[Path]]) -> list[tuple[Path, Path]]:
    """Pairs of files to read and to write: one, or all of a folder with their paths inside it kept.

    Raises:
        DataError: the input is missing, the output has the wrong suffix, or two inputs would write one output.
    """
    start, end = Path(source), Path(target)
    if not start.exists():
        raise DataError(f"{start}: no such file or folder")
    if not start.is_dir():
        if end.suffix.lower() != suffix:
            raise DataError(f"the output {end} must end in {suffix}")
        return [(start, end)]
    jobs = [(path, (end / path.relative_to(start)).with_suffix(suffix)) for path in list_folder(start)]
    writers: dict[Path, Path] = {}
    for path, output in jobs:
        if output in writers:
            raise DataError(f"{writers[output]} and {path} would both be written to {output}")
        writers[output] = path
    return jobs


@contextlib.contextmanager
def _about(source: str | Path) -> Iterator[None]:
    """Put the file's path before a message about what is in it."""
    try:
        yield
    except (BitstreamError, DataError, ModelError) as error:
        text = str(error)
        raise type(error)(text if text.startswith(str(source)) else f"{source}: {text}") from error


def _list_coded(folder: Path) -> list[Path]:
    files = sorted(folder.rglob(f"*{CODED}"))
    if not files:
        raise DataError(f"{folder}: 0 files match *{CODED}")
    return files


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _encoder(arguments: Namespace) -> LearnedCodec:
    set_threads(arguments.threads)
    return encoder_model(arguments.checkpoint, arguments.quality, arguments.device)


def _run_all(jobs: list[tuple[Path, Path]], one: Callable[[Path, Path], str], label: str) -> int:
    """Do all jobs; with several, show progress and let a failing one not stop the others. Returns the exit code."""
    if len(jobs) == 1:
        print(one(*jobs[0]))
        return 0
    failures = 0
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for source, target in progress.track(jobs):
            try:
                line = one(source, target)
            except UserError as error:
                failures += 1
                line = f"error: {error}"
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    print(f"{len(jobs) - failures} of {len(jobs)} files done" + (f", {failures} failed" if failures else ""))
    return EXIT_USER_ERROR if failures else 0
