"""The command ``jointiq NAME ...``: ``jointiq train``, ``jointiq encode``, ...; in a checkout also ``src.NAME``."""

from __future__ import annotations

import os
import sys

from jointiq.errors import UserError, run_cli

#: What ``jointiq --help`` says: the commands, by what one wants to do.
COMMANDS = {
    "Code images": {
        "encode": "an image, or a folder of them, to .jiq files",
        "decode": "back to PNG; the file knows which model wrote it",
        "verify": "encode, decode and compare; nothing is written",
        "info": "what the header of a .jiq file says",
    },
    "Train": {
        "train": "a model, a sweep (-m) or a staged recipe: +experiment=NAME",
        "status": "how runs and sweeps stand",
        "prepare": "cut training patches out of folders of images",
        "export": "a checkpoint to one file that anyone can decode with",
    },
    "Measure and compare": {
        "evaluate": "the rate-distortion curve of checkpoints, from real files",
        "anchors": "the same of JPEG, WebP, AVIF, BPG, VTM, ...",
        "bdrate": "BD-rates of curves, and the paper's Table 2",
        "complexity": "parameters, multiplications and seconds of a model",
        "report": "one HTML page with plots, tables and pictures",
        "dashboard": "a workspace in Weights & Biases",
    },
    "Take a look": {
        "demo": "train for minutes, code photographs, compare with JPEG",
        "study": "a table or figure of the papers again (needs a checkout)",
    },
}
_CODEC = tuple(COMMANDS["Code images"])


def usage() -> str:
    """What ``jointiq`` and ``jointiq --help`` print."""
    lines = ["usage: jointiq COMMAND ...        jointiq COMMAND --help tells all of one"]
    for title, commands in COMMANDS.items():
        lines += ["", f"{title}:", *(f"  {name:11s} {text}" for name, text in commands.items())]
    return "\n".join(
        [
            *lines,
            "",
            "For example:",
            "  jointiq encode photo.png photo.jiq --quality 2",
            "  jointiq decode photo.jiq decoded.png",
            "  jointiq train +experiment=jointiq scale=demo",
            "In Python: import jointiq; jointiq.load, jointiq.encode, jointiq.decode",
        ]
    )


def _run() -> int:
    """Hand the command line over to the command that it names."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    names = [name for commands in COMMANDS.values() for name in commands]
    if name in _CODEC:
        name, rest = "codec", [name, *rest]
    elif name not in (*names, "codec"):
        raise UserError(f"jointiq {name}: no such command; allowed: {', '.join(names)}")
    # In place of this process: the processes of a distributed training repeat the command line.
    os.execv(sys.executable, [sys.executable, "-m", f"jointiq.commands.{name}", *rest])


def main() -> None:
    """Entry point of ``jointiq``."""
    run_cli(_run)


if __name__ == "__main__":
    main()
