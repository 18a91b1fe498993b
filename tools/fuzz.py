"""Have the project read damaged and odd files: each must end in a clean error or in the right result.

    python -m tools.fuzz --what bitstreams --count 10000 --seed 1

``bitstreams``: damaged ``.jiq`` files, half of them with new checksums, so that the decoder itself meets the
damage. ``pictures``: images of all formats, with random EXIF, and damaged. ``models``: exports, checkpoints and
``.pth.tar``. ``results``: RD files and folders of runs and sweeps. They are read in a worker process under caps of time
and memory; if it crashes or hangs, that counts as a failure and a new one goes on. What fails is kept in
``results/fuzz`` and makes the exit code 1.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track

from jointiq.command_line import Parser
from jointiq.errors import ConfigError, run_cli
from jointiq.files import write_bytes

FAILURES = Path("results/fuzz")
#: What is read: the modules of ``tools.fuzzing`` with a function ``target``.
WHAT = ("bitstreams", "pictures", "models", "results")


def main() -> int:
    """Command line of ``python -m tools.fuzz``; returns the exit code."""
    parser = Parser(
        prog="python -m tools.fuzz",
        description="Read damaged and odd files; each must give an error or the right result.",
    )
    parser.add_argument("--what", choices=WHAT, default=WHAT[0], help="kind of files (default: %(default)s)")
    parser.add_argument("--count", type=int, default=10_000, help="how many files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other files (default: %(default)s)")
    arguments = parser.parse_args()
    for key, smallest in (("count", 1), ("seed", 0)):
        if getattr(arguments, key) < smallest:
            raise ConfigError(key, getattr(arguments, key), f"a whole number from {smallest} up")
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from tools.fuzzing.worker import CLEAN, fuzz

    console = Console(stderr=True)
    outcomes: Counter[str] = Counter()
    steps = fuzz(arguments.what, arguments.count, arguments.seed)
    for index, case, outcome in track(steps, f"reading {arguments.what}", arguments.count, console=console):
        outcomes[outcome if outcome in CLEAN else "failed"] += 1
        if outcome not in CLEAN:
            path = FAILURES / f"{arguments.what}-seed{arguments.seed}-{index}{Path(case.name).suffix}"
            write_bytes(path, case.data)
            console.print(f"{path}: {outcome}", markup=False, highlight=False, soft_wrap=True)
    print(
        f"{arguments.count} {arguments.what} (seed {arguments.seed}): {outcomes['error']} clean errors, "
        f"{outcomes['right']} read right, {outcomes['failed']} failures"
    )
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    run_cli(main)
