"""Make the models that come with the repository: ``python -m tools.ship CKPT [CKPT ...] --test kodak=DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

from jointiq.command_line import Parser
from jointiq.errors import run_cli


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.ship",
        description="Export trained models of all rates, measure them on test images by real files, and list and "
        "describe them for src.codec, which then uses the first one without --checkpoint.",
        epilog="Makes MODEL-DISTORTION.safetensors of each, such as jointiq-mse, the tables of README.md and "
        "index.json. When all are finished, they are renamed into the output folder, the index last: if a crash comes "
        "in between, the models are refused until the command is repeated. Models that were there are removed. The "
        "facts of the trainings are read from the folders of their runs. "
        "Measurements are kept: the same command continues where it was stopped. Exit code: 0 done, 2 a value or file "
        "that cannot be used, 130 stopped with Ctrl-C.",
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CKPT", help="of src.train, for all rates")
    parser.add_argument("--test", required=True, metavar="NAME=DIR", help="folder of test images, and its name")
    parser.add_argument("--half", action="store_true", help="try 16-bit transforms; ship those that lose nothing")
    parser.add_argument("--train-name", metavar="NAME", help="of the training images; default: that of their folder")
    parser.add_argument("--trained-on", metavar="TEXT", help='device of the trainings, such as "GPU, H200"')
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: weights")
    parser.add_argument(
        "--results", type=Path, default=Path("results/ship"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: %(default)s")
    return parser


def main() -> None:
    """Command line of ``python -m tools.ship``."""
    given = _parser().parse_args()
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from jointiq.coding import shipped
    from jointiq.evaluation.measuring import worker_count
    from jointiq.runtime import pick_device
    from tools.shipping.ship import Options, ship, summary

    options = Options(
        checkpoints=tuple(given.checkpoints),
        test=given.test,
        output=given.output or shipped.WEIGHTS,
        results=given.results,
        train_name=given.train_name,
        trained_on=given.trained_on,
        half=given.half,
        device=str(pick_device(given.device)),
        workers=worker_count(given.workers),
    )
    written = ship(options)
    summary(options.output / shipped.INDEX).print()
    print("written:", *written)


if __name__ == "__main__":
    run_cli(main)
