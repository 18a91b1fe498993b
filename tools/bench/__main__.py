"""Speed and memory of the codec, beside models of CompressAI on the same core and the same latents."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import Progress

from jointiq.command_line import Parser
from jointiq.console import progress_bar
from jointiq.errors import ConfigError, run_cli
from jointiq.files import write_text
from jointiq.runtime import set_threads
from tools.bench import codec


def run_codec(options: argparse.Namespace) -> None:
    """Compare, measure the sizes, and write ``codec.json`` and the figure."""
    # Imported late, so that --help and a mistyped command do not wait for PyTorch and Matplotlib.
    from tools.bench import report, scaling

    repeats = 1 if options.quick else options.repeats
    warm_up = not options.quick
    size = codec.QUICK_SIZE if options.quick else codec.SIZE
    sizes = scaling.QUICK_SIZES if options.quick else scaling.SIZES
    with progress_bar() as progress:
        step = _stepper(progress, "compare", codec.compare_steps(repeats, warm_up))
        result = codec.compare(size, repeats, warm_up, step)
        step("done")
        result["size_scaling"] = []
        if not options.no_scaling:
            step = _stepper(progress, "sizes", len(sizes) * len(scaling.ACTIONS))
            result["size_scaling"] = scaling.measure_sizes(sizes, step)
            step("done")
    report.comparison_table(result).print()
    written = [options.output]
    if result["size_scaling"]:
        report.scaling_table(result["size_scaling"]).print()
        written.append(report.scaling_plot(result["size_scaling"], options.output.with_suffix(".png")))
    write_text(options.output, json.dumps(result, indent=2) + "\n")
    print("written:\n" + "\n".join(f"  {path}" for path in written))


def run_profile(options: argparse.Namespace) -> None:
    """Print the profile of an encode and a decode."""
    from tools.bench import report

    size = codec.QUICK_SIZE if options.quick else codec.SIZE
    encode, decode = codec.profile_codec(size, codec.LIGHT_GRDN if options.light_grdn else None)
    report.profile_table(f"encode {size[1]}x{size[0]}", encode).print()
    report.profile_table(f"decode {size[1]}x{size[0]}", decode).print()


def _stepper(progress: Progress, text: str, total: int) -> Callable[[str], None]:
    """Add a progress bar; return its callback, which shows a note and counts the step before."""
    task = progress.add_task(text, total=total, note="")
    started = False

    def step(note: str) -> None:
        nonlocal started
        progress.update(task, advance=int(started), note=note)
        started = True

    return step


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = Parser(prog="python -m tools.bench", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", help="default: codec")
    compare = commands.add_parser("codec", help="time our codec beside others, and ours against image size")
    compare.set_defaults(run=run_codec)
    compare.add_argument("--repeats", type=int, default=5, metavar="N", help="timed runs, default: %(default)s")
    compare.add_argument("--no-scaling", action="store_true", help="leave out the measurement against image size")
    compare.add_argument(
        "--output", type=Path, default=Path("results/bench/codec.json"), metavar="JSON", help="default: %(default)s"
    )
    profile = commands.add_parser("profile", help="show where the time of our encoder and decoder goes")
    profile.set_defaults(run=run_profile)
    profile.add_argument("--light-grdn", action="store_true", help="with the light GRDN as enhancer")
    for command in (compare, profile):
        command.add_argument("--quick", action="store_true", help="small images, one run: tries the program only")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given or ["codec"])
    if options.run is run_codec and options.repeats < 1:
        raise ConfigError("--repeats", options.repeats, "whole numbers from 1")
    if options.run is run_codec and options.output.suffix != ".json":
        raise ConfigError("--output", str(options.output), "a file name that ends with .json")
    set_threads(1)
    options.run(options)
    return 0


if __name__ == "__main__":
    run_cli(main)
