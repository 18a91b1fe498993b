"""Turn a training checkpoint into one self-contained model file.

python -m src.export CHECKPOINT OUT.safetensors [--half]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from src.errors import UserError, run_cli
from src.models.checkpoint import load_model
from src.models.export import SUFFIX, write_export


def main() -> None:
    """Command line of ``python -m src.export``."""
    parser = argparse.ArgumentParser(
        prog="python -m src.export",
        description="Write a trained model as one safetensors file: float transforms, integer entropy model, "
        "configuration. It contains no code, and decodes the same latents on every machine.",
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint of src.train, such as .../checkpoints/last.ckpt")
    parser.add_argument("output", type=Path, help=f"file to write, ending in {SUFFIX}")
    parser.add_argument("--half", action="store_true", help="store the transforms in 16 bits (half the size)")
    arguments = parser.parse_args()
    if arguments.output.suffix != SUFFIX:
        raise UserError(f"{arguments.output}: the name of an export must end in {SUFFIX}")
    model = load_model(arguments.checkpoint)
    identity = write_export(model, arguments.output, half=arguments.half)
    size = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output}: {size:.1f} MB, fingerprint {identity[:4].hex()}")


if __name__ == "__main__":
    run_cli(main)
