"""Images to compressed files and back.

python -m src.codec encode IN OUT    IN.png -> OUT.jiq, or a folder of images -> a folder of files
python -m src.codec decode IN OUT    IN.jiq -> OUT.png, or a folder -> a folder
python -m src.codec verify IN        encode, decode, compare; nothing is written
python -m src.codec info FILE        what the header of a file says

With a trained model of the repository (``--quality``), or with another (``--checkpoint MODEL``).
"""

from __future__ import annotations

import argparse
from functools import partial

from jointiq.command_line import program
from jointiq.configs import INSTALLED
from jointiq.errors import run_cli
from jointiq.runtime import ended_by_signals

_MODEL = "a .ckpt of src.train, or an export of src.export"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="jointiq" if INSTALLED else program("codec"),
        description="Compress images with a trained model into .jiq files, and back. A file decodes only with the "
        "model that wrote it; its latents are the same on every machine. Without --checkpoint the models in weights/ "
        "are used, which decode finds by what the file says.",
        epilog="Examples: python -m src.codec encode photo.png photo.jiq --quality 2; "
        "python -m src.codec encode photo.png photo.jiq --checkpoint run/checkpoints/last.ckpt",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    where.add_argument("--threads", type=int, help="CPU threads (default: all)")
    writer = argparse.ArgumentParser(add_help=False, parents=[where])
    model = writer.add_mutually_exclusive_group()
    model.add_argument("--quality", type=int, metavar="Q", help="shipped model: 1 (smallest files) to 4; default: 3")
    model.add_argument("--checkpoint", metavar="MODEL", help=_MODEL)
    reader = argparse.ArgumentParser(add_help=False, parents=[where])
    reader.add_argument("--checkpoint", metavar="MODEL", help=f"{_MODEL}; default: the shipped model of each file")

    command = commands.add_parser("encode", parents=[writer], help="image -> .jiq; or a folder of images")
    command.add_argument("input", help="an 8-bit, opaque image (RGB, grey, palette), or a folder of images")
    command.add_argument("output", help="the .jiq file, or the folder of .jiq files, to write")

    command = commands.add_parser("decode", parents=[reader], help=".jiq -> .png; or a folder of .jiq files")
    command.add_argument("input", help="a .jiq file, or a folder of them")
    command.add_argument("output", help="the .png file, or the folder of .png files, to write")

    command.add_argument("--overwrite", action="store_true", help="in a folder, also pictures that were not decoded")

    command = commands.add_parser("verify", parents=[writer], help="encode, decode and compare, in memory")
    command.add_argument("input", help="an image, or a folder of images")

    command = commands.add_parser("info", help="the header of a .jiq file")
    command.add_argument("input", help="a .jiq file")
    return top


def main() -> int:
    """Command line of ``python -m src.codec``; returns the exit code."""
    arguments = parser().parse_args()
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from jointiq.coding import commands
    from jointiq.evaluation.metrics import psnr

    run = {"encode": commands.encode, "decode": commands.decode, "info": commands.info}
    run["verify"] = partial(commands.verify, psnr=psnr)
    with ended_by_signals():
        return run[arguments.command](arguments)


if __name__ == "__main__":
    run_cli(main)
