"""Cut training patches out of folders of images: ``python -m src.prepare SRC... --output DIR``.

The same command again continues an interrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jointiq.command_line import Parser, program
from jointiq.data.prepare.patch_cutting import PatchSettings
from jointiq.errors import run_cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and make the patches."""
    default = PatchSettings()
    parser = Parser(prog=program("prepare"), description="Cut training patches out of folders of images.")
    parser.add_argument("folders", nargs="+", metavar="SRC", help="folder of images; read with all folders in it")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    for key, kind, text in (
        ("patches", int, "how many"),
        ("side", int, "of a patch, in pixels"),
        ("seed", int, "of all draws"),
        ("min-zoom", float, "a patch shows a square of SIDE / zoom pixels, zoom uniform from this to 1, scaled down"),
    ):
        value = getattr(default, key.replace("-", "_"))
        parser.add_argument(f"--{key}", type=kind, default=value, metavar="N", help=f"{text}; default: %(default)s")
    parser.add_argument(
        "--near-duplicates", type=int, metavar="BITS",
        help="leave out images whose 64-bit fingerprint differs from another's in at most BITS; default: copies only",
    )  # fmt: skip
    given = vars(parser.parse_args(arguments))
    folders, output = given.pop("folders"), given.pop("output")
    settings = PatchSettings(**given)
    settings.check()
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from jointiq.data.prepare.patch_set import prepare
    from jointiq.data.prepared import MANIFEST

    manifest = prepare(folders, output, settings)
    left_out = manifest["left_out"]
    print(f"{output}: {given['patches']} patches of {given['side']}x{given['side']}, {len(manifest['images'])} images")
    for path, reason in list(left_out.items())[:10]:
        print(f"left out: {path}: {reason}")
    if len(left_out) > 10:
        print(f"left out: {len(left_out) - 10} more, listed in {output / MANIFEST}")
    print(f"train on it: data=prepared data.train_dir={output} data.val_dir=DIR")
    return 0


if __name__ == "__main__":
    run_cli(main)
