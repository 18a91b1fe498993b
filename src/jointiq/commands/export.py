"""Export a training checkpoint as one self-contained model file.

python -m src.export CHECKPOINT OUT.safetensors [--half]
python -m src.export CHECKPOINT OUT.pth.tar             (for CompressAI's tools)
"""

from __future__ import annotations

from pathlib import Path

from jointiq.coding import EXPORT, PTH_TAR
from jointiq.command_line import Parser, program
from jointiq.errors import UserError, run_cli
from jointiq.runtime import ended_by_signals


def main() -> None:
    """Command line of ``python -m src.export``."""
    parser = Parser(
        prog=program("export"),
        description="Write a trained model as one safetensors file: float transforms, integer entropy model, "
        "configuration. It contains no code, and decodes the same latents on every machine. Or, by the name of the "
        "output, in the layout of CompressAI's checkpoints.",
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint of src.train, or the folder of its run")
    parser.add_argument("output", type=Path, help=f"file to write, ending in {EXPORT} or {PTH_TAR}")
    parser.add_argument("--half", action="store_true", help=f"transforms: kernels in 16 bits ({EXPORT} only)")
    arguments = parser.parse_args()
    output: Path = arguments.output
    if not output.name.endswith((EXPORT, PTH_TAR)):
        raise UserError(f"{output}: the name of an export must end in {EXPORT} or {PTH_TAR}")
    for_compressai = output.name.endswith(PTH_TAR)
    if for_compressai and arguments.half:
        raise UserError(f"--half is not allowed for {output}; allowed: a name that ends in {EXPORT}")
    if output.exists() and arguments.checkpoint.exists() and output.samefile(arguments.checkpoint):
        raise UserError(f"{output} is the checkpoint itself; allowed: another name")
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from jointiq.coding.export import write_export
    from jointiq.coding.load import load_model
    from jointiq.interop.pth_tar import write_pth_tar

    model = load_model(arguments.checkpoint)
    with ended_by_signals():
        identity = write_pth_tar(model, output) if for_compressai else write_export(model, output, arguments.half)
    size = output.stat().st_size / 1e6
    print(f"{output}: {size:.1f} MB, fingerprint {identity[:4].hex()}")


if __name__ == "__main__":
    run_cli(main)
