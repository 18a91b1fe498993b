"""Speed of training: steps a second of JointIQ-Net beside CompressAI's mbt2018, in one process, in turns.

Both have the same N, M, batch and crop. A step is forward, loss, backward and update. The share of time that a training
waits for its data is measured with the project's own loader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jointiq.command_line import Parser
from jointiq.console import Table, number
from jointiq.errors import ConfigError, run_cli
from jointiq.files import write_text
from tools.bench.codec import LIGHT, NAMES, OURS, THEIRS
from tools.bench.modes import MODES


def table(result: Mapping[str, Any]) -> Table:
    """Return the steps a second of all contenders in each mode."""
    settings = result["settings"]
    title = (
        f"training, N = {settings['N']}, M = {settings['M']}, batch {settings['batch']}, crop {settings['crop']}, "
        f"{settings['device']}, {settings['threads']} CPU threads, median of {settings['rounds']}"
    )
    modes = list(result["modes"])
    header = [text for mode in modes for text in (f"{mode}: steps/s", "s/step", "ratio", "ratio by CPU time")]
    rows = Table(title, ("network", *header))
    for name in (THEIRS, OURS, LIGHT):
        cells = [NAMES[name]]
        for mode in modes:
            entries = result["modes"][mode]["contenders"]
            own, theirs = entries[name], entries[THEIRS]
            cells += [number(own["steps_per_second"], 3), number(own["seconds"], 3)]
            cells += [number(theirs[key] / own[key], 3) for key in ("seconds", "processor_seconds")]
        rows.rows.append(cells)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print and write."""
    parser = Parser(prog="python -m tools.bench.train", description=__doc__)
    for flags, value, text in (
        (("--N",), 192, "channels of the transforms"),
        (("--M",), 192, "channels of y"),
        (("--batch",), 8, "patches a step"),
        (("--crop",), 256, "their side in pixels, a multiple of 64 from 128 up"),
        (("--rounds",), 5, "timed rounds"),
    ):
        parser.add_argument(*flags, type=int, default=value, help=f"{text}; default: %(default)s")
    parser.add_argument("--steps", type=int, help="steps of each network a round; default: 20 on a GPU, else 1")
    modes = f"of {', '.join(MODES)}; default: all on a GPU, else fp32"
    parser.add_argument("--modes", nargs="+", choices=MODES, metavar="MODE", help=modes)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own")
    parser.add_argument("--data", type=Path, metavar="DIR", help="patches of src.prepare; default: the sample")
    parser.add_argument("--data-steps", type=int, default=0, help="steps to measure the wait for data with; default: 0")
    parser.add_argument("--workers", type=int, help="processes that prepare data; default: as in training")
    parser.add_argument(
        "--output", type=Path, default=Path("results/bench/train.json"), metavar="JSON", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    for key in ("N", "M", "batch", "rounds"):
        if getattr(options, key) < 1:
            raise ConfigError(f"--{key}", getattr(options, key), "a whole number from 1 up")
    if options.crop < 128 or options.crop % 64:
        raise ConfigError("--crop", options.crop, "a multiple of 64 from 128 up")
    if options.output.suffix != ".json":
        raise ConfigError("--output", str(options.output), "a file name that ends with .json")
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from tools.bench.training_speed import run

    result = run(options)
    table(result).print()
    for mode, entry in result["data"].items():
        share, workers = 100 * entry["share_waiting"], entry["workers"]
        print(f"{mode}: {share:.2f} % of the time waiting for data ({workers} workers)")
    write_text(options.output, json.dumps(result, indent=2) + "\n")
    print("written:", options.output)
    return 0


if __name__ == "__main__":
    run_cli(main)
