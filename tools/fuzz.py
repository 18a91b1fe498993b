"""Decode damaged ``.jiq`` files: each must end in a clean error or in the latents that were coded.

    python -m tools.fuzz --count 10000 --seed 1

Half of the damaged files get their checksums recomputed, so that the decoder itself meets the damage. They are decoded
in a worker process under caps of time and memory; if it crashes or hangs, that counts as a failure and a new one goes
on. What fails is kept in ``results/fuzz`` and makes the exit code 1.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track

from jointiq.errors import ConfigError, run_cli
from jointiq.files import write_bytes

FAILURES = Path("results/fuzz")


def main() -> int:
    """Command line of ``python -m tools.fuzz``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description="Decode damaged .jiq files; each must give an error or the exact latents.",
    )
    parser.add_argument("--count", type=int, default=10_000, help="how many files (default 10000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other files (default 1)")
    arguments = parser.parse_args()
    for key, smallest in (("count", 1), ("seed", 0)):
        if getattr(arguments, key) < smallest:
            raise ConfigError(key, getattr(arguments, key), f"a whole number from {smallest} up")
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from tools.fuzzing.worker import CLEAN, fuzz

    console = Console(stderr=True)
    outcomes: Counter[str] = Counter()
    steps = fuzz(arguments.count, arguments.seed)
    for index, data, outcome in track(steps, "decoding damaged files", arguments.count, console=console):
        outcomes[outcome if outcome in CLEAN else "failed"] += 1
        if outcome not in CLEAN:
            path = FAILURES / f"seed{arguments.seed}-{index}.jiq"
            write_bytes(path, data)
            console.print(f"{path}: {outcome}", highlight=False, soft_wrap=True)
    print(
        f"{arguments.count} damaged files (seed {arguments.seed}): {outcomes['error']} clean errors, "
        f"{outcomes['exact']} with the exact latents, {outcomes['failed']} failures"
    )
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    run_cli(main)
