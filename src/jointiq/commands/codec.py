"""Code images to .jiq files and back.

python -m src.codec encode IN OUT    IN.png -> OUT.jiq, or a folder of images -> a folder of files
python -m src.codec decode IN OUT    IN.jiq -> OUT.png, or a folder -> a folder
python -m src.codec verify IN        encode, decode, compare; nothing is written
python -m src.codec info FILE        what the header of a file says

With the trained model of the repository, or with another (``--checkpoint MODEL``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jointiq.bitstream.container import DEFAULT_QUALITY, HIGHEST, LOWEST, TENTHS, Container, require_quality
from jointiq.bitstream.scan import scan_name
from jointiq.coding import CODED, EFFORTS, PICTURE, shipped
from jointiq.command_line import Parser, program
from jointiq.commands.encoding import TARGETS, Encoder, Wish
from jointiq.commands.file_pairs import Interrupted, pair_files, run_pairs
from jointiq.configs import INSTALLED
from jointiq.console import progress_bar
from jointiq.data.images import image_size, is_ours, list_images, read_image, write_png
from jointiq.errors import BitstreamError, DataError, ModelError, UserError, run_cli
from jointiq.evaluation.metrics import psnr
from jointiq.files import atomic_path, list_files, read_bytes, require_writable
from jointiq.runtime import ended_by_signals, pick_device, set_threads

# The models are imported late: `info`, and mistakes that show before a model is needed, do not wait for PyTorch.
if TYPE_CHECKING:
    from jointiq.coding.image_codec import Encoded, Image
    from jointiq.models.base import LearnedCodec

#: An installed package has the commands of the codec without its name.
_PROGRAM = "jointiq" if INSTALLED else program("codec")
_MODEL = "a .ckpt of src.train, the folder of a run, an export of src.export, or the name of a shipped model"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    return int(value) if value.is_integer() else value


def _add_quality(parser: Any) -> None:
    parser.add_argument(
        "--quality",
        type=_number,
        metavar="Q",
        help=f"{LOWEST} (smallest files) to {HIGHEST} (best pictures); default: {DEFAULT_QUALITY:g}; for models of all "
        "rates, as the shipped ones are",
    )


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = Parser(
        prog=_PROGRAM,
        description="Compress images with a trained model into .jiq files, and back. A file decodes only with the "
        "model that wrote it; its latents are the same on every machine. Without --checkpoint a model of weights/ "
        "is used, which decode finds by what the file says.",
        epilog=f"Examples: {_PROGRAM} encode photo.png photo.jiq --quality 30; "
        f"{_PROGRAM} encode photo.png photo.jiq --bpp 0.5; "
        f"{_PROGRAM} encode photo.png photo.jiq --checkpoint run/checkpoints/last.ckpt",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    where = Parser(add_help=False)
    where.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    where.add_argument("--threads", type=int, help="CPU threads (default: all)")
    writer = Parser(add_help=False, parents=[where])
    writer.add_argument("--checkpoint", metavar="MODEL", help=_MODEL)
    reader = Parser(add_help=False, parents=[where])
    reader.add_argument("--checkpoint", metavar="MODEL", help=f"{_MODEL}; default: the shipped one that wrote the file")

    command = commands.add_parser("encode", parents=[writer], help="image -> .jiq; or a folder of images")
    rate = command.add_mutually_exclusive_group()
    _add_quality(rate)
    for name, (metavar, text) in TARGETS.items():
        rate.add_argument(f"--{name}", type=_number, metavar=metavar, help=text)
    effort = command.add_mutually_exclusive_group()
    effort.add_argument(
        "--effort",
        choices=EFFORTS,
        default="fast",
        help="fewer bits at equal quality, by refining what is sent to the decoder for every picture: "
        f"{', '.join(f'{name} ({steps} steps)' for name, steps in EFFORTS.items())}; default: %(default)s. Ctrl-C "
        "keeps the best so far",
    )
    effort.add_argument("--refine", type=_number, metavar="STEPS", help="the same by the number of steps")
    command.add_argument("input", help="an 8-bit, opaque image (RGB, grey, palette), or a folder of images")
    command.add_argument("output", help="the .jiq file, or the folder of .jiq files, to write")

    command = commands.add_parser("decode", parents=[reader], help=".jiq -> .png; or a folder of .jiq files")
    command.add_argument("input", help="a .jiq file, or a folder of them")
    command.add_argument("output", help="the .png file, or the folder of .png files, to write")

    command.add_argument("--overwrite", action="store_true", help="also pictures that decode has not written itself")

    command = commands.add_parser("verify", parents=[writer], help="encode, decode and compare, in memory")
    _add_quality(command)
    command.add_argument("input", help="an image, or a folder of images")

    command = commands.add_parser("info", help="the header of a .jiq file")
    command.add_argument("input", help="a .jiq file")
    return top


def encode(arguments: Namespace) -> int:
    """Code images to ``.jiq`` files."""
    wish = Wish.of(arguments)
    files = pair_files(arguments.input, arguments.output, CODED, _list_images)
    for source, target in files.single():
        image_size(source)
        require_writable(target)
    progress = progress_bar()
    task = progress.add_task("refine", total=wish.steps, note="", visible=progress.console.is_terminal)

    def begin(what: str) -> None:
        progress.reset(task, description=what, note="")

    def advance(step: int, saved: float) -> None:
        progress.update(task, completed=step, note=f"{100 * saved:.1f} % of bits saved")

    encode_one = Encoder(_model(arguments), wish, begin, advance)
    totals = {"bytes": 0, "pixels": 0}

    def one(source: Path, target: Path) -> str:
        image, colours = _read(source)
        # A file that cannot be written is found before minutes of refinement, not after them.
        with atomic_path(target) as unfinished:
            with _about(source):
                coded = encode_one(image)
            encoded = coded.encoded
            unfinished.write_bytes(encoded.data)
        size, pixels = len(encoded.data), image.shape[0] * image.shape[1]
        totals["bytes"] += size
        totals["pixels"] += pixels
        said = f"{size} bytes, {8 * size / pixels:.4f} bpp{coded.said}, {coded.seconds:.2f} s{colours}"
        line = f"{source} -> {target}: {said}"
        if coded.interrupted:
            raise Interrupted(line)
        return line

    code = run_pairs(files, one, "encoding", progress if wish.steps else None)
    if len(files.pairs) > 1 and totals["pixels"]:
        rate = 8 * totals["bytes"] / totals["pixels"]
        print(f"total: {totals['bytes']} bytes, {rate:.4f} bpp over {totals['pixels'] / 1e6:.2f} megapixels")
    return code


def decode(arguments: Namespace) -> int:
    """Decode ``.jiq`` files to PNG."""
    files = pair_files(arguments.input, arguments.output, PICTURE, _list_coded)
    for source, target in files.single():
        with _about(source):
            Container.unpack(read_bytes(source))
        _require_ours(target, arguments.overwrite)
        require_writable(target)
    set_threads(arguments.threads)
    device = pick_device(arguments.device)
    given = None
    if arguments.checkpoint is not None:
        from jointiq.coding.load import load_model

        given = load_model(arguments.checkpoint, device)
    models = shipped.Decoders(given, device)
    from jointiq.coding.image_codec import decode_image

    def one(source: Path, target: Path) -> str:
        _require_ours(target, arguments.overwrite)
        with _about(source):
            data = read_bytes(source)
            decoded = decode_image(models.of(data), data)
        write_png(target, decoded.image)
        height, width, _ = decoded.image.shape
        return f"{source} -> {target}: {width}x{height}, {decoded.seconds:.2f} s"

    return run_pairs(files, one, "decoding")


def _require_ours(target: Path, overwrite: bool) -> None:
    """Refuse to overwrite a picture that was not decoded here, unless that is wanted."""
    if not overwrite and target.exists() and not is_ours(target):
        raise DataError(f"{target} is there already and was not decoded here; allowed: another name, --overwrite")


def verify(arguments: Namespace) -> int:
    """Encode and decode in memory, and check that the decoder finds the encoder's latents."""
    files = pair_files(arguments.input, None, "", _list_images)
    for source, _ in files.single():
        image_size(source)
    model = _model(arguments)
    if arguments.quality is not None:
        model = model.at(arguments.quality)
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

    return run_pairs(files, one, "verifying")


def _ratios(encoded: Encoded) -> str:
    """Return the ratios of payload and estimated bits as text; through the integer bits where the coder has them."""
    assert encoded.estimated_bits is not None
    payload, estimate = 8 * encoded.payload_bytes, max(sum(encoded.estimated_bits.values()), 1e-9)
    if encoded.integer_bits is None:
        return f"payload / float bits {payload / estimate:.5f}"
    exact = max(sum(encoded.integer_bits.values()), 1e-9)
    return f"integer / float bits {exact / estimate:.5f}; payload / integer bits {payload / exact:.5f}"


def info(arguments: Namespace) -> int:
    """Print what the header of a ``.jiq`` file says."""
    data = read_bytes(arguments.input)
    with _about(arguments.input):
        container = Container.unpack(data)
    pixels = container.height * container.width
    rows = {
        "file": f"{arguments.input}, {len(data)} bytes, {8 * len(data) / pixels:.4f} bpp, checksum correct",
        "format version": container.version,
        "model fingerprint": container.fingerprint.hex(),
        "shipped model": _shipped_name(container.fingerprint),
        "image": f"{container.width}x{container.height} pixels",
        "scan": scan_name(container.scan),
        **({} if container.tenths is None else {"quality": f"{container.tenths / TENTHS:g}"}),
        "segment z": f"{len(container.z)} bytes",
        "segment y": f"{len(container.y)} bytes",
        "header": f"{len(data) - container.payload_bytes} bytes, with the checksums",
        "latents CRC-32": f"{container.latents_crc:08x}",
    }
    for key, value in rows.items():
        print(f"{key:18} {value}")
    return 0


def _shipped_name(start: bytes) -> str:
    """Return the name of the shipped model whose fingerprint begins with ``start``, or why there is none."""
    try:
        model = shipped.of_fingerprint(start)
    except ModelError as error:
        # The rest of the header is printed even if the shipped models cannot be read.
        return f"unknown ({error})"
    return "none" if model is None else model.name


@contextlib.contextmanager
def _about(source: str | Path) -> Iterator[None]:
    """Prefix errors about a file's contents with its path."""
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
    """Return an image, and the end of a line that says how its colours were converted."""
    from jointiq.coding.image_codec import require_size

    with _about(source):
        # First, because decoding an image that is far too large takes seconds.
        require_size(*image_size(source))
        notes: list[str] = []
        return read_image(source, notes.append), "".join(f"; {note}" for note in notes)


def _model(arguments: Namespace) -> LearnedCodec:
    """Load the model to encode with: the checkpoint, or else the shipped one."""
    if arguments.quality is not None:
        require_quality(arguments.quality, "--quality")
    set_threads(arguments.threads)
    if arguments.checkpoint is None:
        return shipped.load_shipped(shipped.of_name(), pick_device(arguments.device))
    from jointiq.coding.load import load_model

    return load_model(arguments.checkpoint, pick_device(arguments.device))


_COMMANDS = {"encode": encode, "decode": decode, "verify": verify, "info": info}


def main() -> int:
    """Command line of ``python -m src.codec``; returns the exit code."""
    arguments = _parser().parse_args()
    # PyTorch's threads would wait for each other in a loop, which on a busy machine takes the cores from who is waited
    # for: a picture then decodes three times as slowly.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ended_by_signals():
        return _COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    run_cli(main)
