"""Print the status of runs: ``python -m src.status [FOLDER ...]``; default: the runs of the newest sweep."""

from __future__ import annotations

from pathlib import Path

from jointiq.command_line import Parser, program
from jointiq.errors import UserError, run_cli
from jointiq.runs.status import read_folders, status_table


def main() -> int:
    """Parse the command line, print the table and return the exit code."""
    parser = Parser(
        prog=program("status"),
        description="A table of runs: done, running, failed, cut (the same command goes on) or waiting; steps, bpp and "
        "PSNR, time left. The numbers are those of the last validation; where the note says test, of the test images' "
        "files.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="a sweep (results/sweeps/NAME), a run, or a folder with runs in it; default: the newest sweep",
    )
    folders: list[Path] = parser.parse_args().folders
    status_table(read_folders(folders or [_newest_sweep()])).print()
    return 0


def _newest_sweep() -> Path:
    sweeps = sorted(Path("results/sweeps").glob("*/jobs"), key=lambda path: path.stat().st_mtime)
    if not sweeps:
        raise UserError(f"no sweep in results/sweeps; allowed: {program('status')} FOLDER")
    return sweeps[-1].parent


if __name__ == "__main__":
    run_cli(main)
