"""Encode, decode, verify and describe files; whole folders with progress and a summary."""

from __future__ import annotations

import contextlib
import unicodedata
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jointiq.bitstream.container import VERSION, Container
from jointiq.bitstream.scan import scan_name
from jointiq.coding import CODED, PICTURE, shipped
from jointiq.data.images import image_size, is_ours, list_images, read_image, write_png
from jointiq.errors import EXIT_USER_ERROR, BitstreamError, DataError, ModelError, UserError
from jointiq.files import list_files, read_bytes, write_bytes
from jointiq.runtime import pick_device, set_threads

# The models are imported late: `info`, and mistakes that show before a model is needed, do not wait for PyTorch.
if TYPE_CHECKING:
    from jointiq.coding.image_codec import Encoded, Image
    from jointiq.models.base import LearnedCodec

#: The files of a folder; what cannot be looked into goes to the function.
_Lister = Callable[[Path, Callable[[OSError], object]], list[Path]]


def encode(arguments: Namespace) -> int:
    """Images to ``.jiq`` files."""
    jobs = plan(arguments.input, arguments.output, CODED, _list_images)
    model = _encoder(arguments)
    from jointiq.coding.image_codec import encode_image

    totals = {"bytes": 0, "pixels": 0}

    def one(source: Path, target: Path) -> str:
        image, colours = _read(source)
        with _about(source):
            encoded = encode_image(model, image, estimate=False)
        write_bytes(target, encoded.data)
        size, pixels = len(encoded.data), image.shape[0] * image.shape[1]
        totals["bytes"] += size
        totals["pixels"] += pixels
        return f"{source} -> {target}: {size} bytes, {8 * size / pixels:.4f} bpp, {encoded.seconds:.2f} s{colours}"

    code = _run_all(jobs, one, "encoding")
    if len(jobs.pairs) > 1 and totals["pixels"]:
        rate = 8 * totals["bytes"] / totals["pixels"]
        print(f"total: {totals['bytes']} bytes, {rate:.4f} bpp over {totals['pixels'] / 1e6:.2f} megapixels")
    return code


def decode(arguments: Namespace) -> int:
    """``.jiq`` files to PNG."""
    jobs = plan(arguments.input, arguments.output, PICTURE, _list_coded)
    set_threads(arguments.threads)
    device = pick_device(arguments.device)
    given = None
    if arguments.checkpoint is not None:
        from jointiq.coding.load import load_model

        given = load_model(arguments.checkpoint, device)
    models = shipped.Decoders(given, device)
    from jointiq.coding.image_codec import decode_image

    def one(source: Path, target: Path) -> str:
        if jobs.of_folder and not arguments.overwrite and target.exists() and not is_ours(target):
            raise DataError(f"{target} is there already and was not decoded here; allowed: another folder, --overwrite")
        with _about(source):
            data = read_bytes(source)
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
    jobs = plan(arguments.input, None, "", _list_images)
    model = _encoder(arguments)
    from jointiq.coding.image_codec import decode_image, encode_image, same_latents

    def one(source: Path, _target: Path) -> str:
        image, colours = _read(source)
        encoded = encode_image(model, image)
        decoded = decode_image(model, encoded.data)
        if not same_latents(encoded, decoded):
            raise UserError(f"{source}: the decoded latents differ from the coded ones")
        return (
            f"{source}: latents exact; {len(encoded.data)} bytes, {8 * len(encoded.data) / (image.size / 3):.4f} bpp; "
            f"{_ratios(encoded)}; PSNR {psnr(image, decoded.image):.2f} dB{colours}"
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
    data = read_bytes(arguments.input)
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
        model = shipped.of_fingerprint(start)
    except ModelError as error:
        return f"unknown ({error})"
    return "none" if model is None else f"{model.name} (--quality {model.quality})"


@dataclass(frozen=True)
class Jobs:
    """Pairs of files to read and to write.

    Attributes:
        of_folder: they are those of a folder.
        locked: what could not be looked into there, and why.
    """

    pairs: list[tuple[Path, Path]]
    of_folder: bool
    locked: list[str]


def plan(source: str, target: str | None, suffix: str, list_folder: _Lister) -> Jobs:
    """What to read and to write: one file, or all of a folder with their paths inside it kept.

    Args:
        target: None: nothing is written, and the second of a pair is the first.
        suffix: of what is written.
        list_folder: gives the files of a folder.

    Raises:
        DataError: the input is missing, the output has the wrong suffix, or two inputs would write one output.
    """
    start = Path(source)
    end = start if target is None else Path(target)
    try:
        is_folder = start.is_dir()
        if not start.exists():
            raise DataError(f"{start}: no such file or folder")
    except OSError as error:
        raise DataError(f"{start}: {error.strerror or error}") from error
    if not is_folder:
        if target is not None and end.suffix.lower() != suffix:
            raise DataError(f"the output {end} must end in {suffix}")
        return Jobs([(start, end)], False, [])
    locked: list[str] = []
    sources = list_folder(start, lambda error: locked.append(f"{error.filename}: {error.strerror}"))
    if target is None:
        return Jobs([(path, path) for path in sources], True, locked)
    pairs = [(path, (end / path.relative_to(start)).with_suffix(suffix)) for path in sources]
    writers: dict[str, Path] = {}
    for path, output in pairs:
        # Some file systems tell names apart neither by case nor by the form of an accent.
        key = unicodedata.normalize("NFC", str(output)).casefold()
        if key in writers:
            raise DataError(f"{writers[key]} and {path} would both be written to {output}")
        writers[key] = path
    return Jobs(pairs, True, locked)


@contextlib.contextmanager
def _about(source: str | Path) -> Iterator[None]:
    """Put the file's path before a message about what is in it."""
    try:
        yield
    except (BitstreamError, DataError, ModelError) as error:
        text = str(error)
        raise type(error)(text if text.startswith(str(source)) else f"{source}: {text}") from error


def _list_images(folder: Path, locked: Callable[[OSError], object]) -> list[Path]:
    return list_images(folder, locked=locked)


def _list_coded(folder: Path, locked: Callable[[OSError], object]) -> list[Path]:
    files = [path for path in list_files(folder, locked=locked) if path.suffix.lower() == CODED]
    if not files:
        raise DataError(f"{folder}: 0 files match *{CODED}")
    return files


def _read(source: Path) -> tuple[Image, str]:
    """An image, and what has been done to its colours, as the end of a line."""
    from jointiq.coding.image_codec import require_size

    with _about(source):
        # Before it is decoded, which takes seconds where it is far too large.
        require_size(*image_size(source))
        notes: list[str] = []
        return read_image(source, notes.append), "".join(f"; {note}" for note in notes)


def _encoder(arguments: Namespace) -> LearnedCodec:
    """The model to encode with: of the checkpoint, or else the shipped one of the quality."""
    set_threads(arguments.threads)
    if arguments.checkpoint is None:
        return shipped.load_shipped(shipped.of_quality(arguments.quality), pick_device(arguments.device))
    from jointiq.coding.load import load_model

    return load_model(arguments.checkpoint, pick_device(arguments.device))


def _run_all(jobs: Jobs, one: Callable[[Path, Path], str], label: str) -> int:
    """Do all jobs; with several, show progress and let a failing one not stop the others. Returns the exit code."""
    if len(jobs.pairs) == 1 and not jobs.locked:
        print(one(*jobs.pairs[0]))
        return 0
    failures = 0
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def say(line: str) -> None:
            # Brackets in a name are no markup.
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        for problem in jobs.locked:
            say(f"error: {problem}")
        for source, target in progress.track(jobs.pairs):
            try:
                say(one(source, target))
            except (UserError, OSError) as error:
                failures += 1
                say(f"error: {error}")
    done = f"{len(jobs.pairs) - failures} of {len(jobs.pairs)} files done"
    done += f", {failures} failed" if failures else ""
    print(done + (f", {len(jobs.locked)} folders cannot be read" if jobs.locked else ""))
    return EXIT_USER_ERROR if failures or jobs.locked else 0
