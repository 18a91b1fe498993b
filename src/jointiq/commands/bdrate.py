"""Compute BD-rates of given RD curves, or of all curves in a results folder against anchors and as the paper's Table 2.

``python -m src.bdrate ANCHOR TEST [TEST ...]`` prints one table of RD files, or of curves of runs and sweeps.
``python -m src.bdrate --results DIR --anchors DIR`` prints and writes all tables of a folder; with ``--wandb GROUP``
they are logged as the last run of a sweep's group in W&B.
``python -m src.bdrate`` prints the project's own measurements, and then the tables of the folder ``results``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jointiq.command_line import Parser, program
from jointiq.errors import ConfigError, DataError, UserError, run_cli
from jointiq.evaluation.bd_rate import METRICS, BDRate, bd_rate
from jointiq.evaluation.comparison import (
    compare_all,
    compare_pairs,
    comparison_options,
    find_compared,
    find_curves,
    given_curves,
    print_comparison,
    print_rates,
    write_comparison,
)
from jointiq.evaluation.rd import RDCurve
from jointiq.evaluation.tables import bd_table
from jointiq.studies.kept import kept_tables
from jointiq.tracking.bdrate import log_comparison
from jointiq.tracking.mode import PROJECT

RESULTS = Path("results")


def compare(anchor: RDCurve, tests: Sequence[RDCurve], metrics: Sequence[str], method: str) -> list[BDRate]:
    """Return the BD-rates of ``tests`` against ``anchor``; what cannot be compared is named on stderr.

    Raises:
        DataError: nothing can be compared; the first reason.
    """
    rates = []
    failed: list[DataError] = []
    for test in tests:
        for metric in metrics:
            try:
                rates.append(bd_rate(anchor, test, metric, method))
            except DataError as error:
                failed.append(error)
    if not rates and failed:
        raise failed[0]
    for problem in dict.fromkeys(map(str, failed)):
        print(f"left out: {problem}", file=sys.stderr)
    return rates


def compare_folders(
    results: Sequence[Path],
    anchors: Sequence[Path],
    method: str,
    output: Path | None,
    group: str | None = None,
    project: str = PROJECT,
) -> None:
    """Print and write the tables of all curves in ``results`` against ``anchors``.

    Args:
        results: folders or RD files of models; empty: the folder ``results``.
        anchors: folders or RD files of anchors; empty: those in folders named ``anchors`` in ``results``.
        method: of the BD-rates.
        output: folder for the tables; None: the one folder in ``results``, else the folder ``results``.
        group: W&B group to log the tables in; None: do not log them.
        project: W&B project of the group.

    Raises:
        DataError: nothing to compare, or nothing that can be.
        UserError: wandb is not installed, or does not start.
    """
    models, against = find_compared(results or [RESULTS], anchors)
    comparison = compare_all(models, against, method)
    print_comparison(comparison)
    folder = output or (results[0] if len(results) == 1 and results[0].is_dir() else RESULTS)
    print("written:", *write_comparison(folder, comparison))
    if group is not None:
        taken = {file.path.resolve() for file in against}
        ours = [file.curve for file in models if file.path.resolve() not in taken]
        run = log_comparison(group, folder, comparison, ours, [file.curve for file in against], project)
        print("W&B run:", run)


def compare_all_there_is(anchors: Sequence[Path], method: str, output: Path | None) -> None:
    """Print the project's own measurements, then all that can be compared in the folder ``results``, if there is one.

    Only the tables of ``results`` are written. Curves that cannot be compared are no error.

    Raises:
        DataError: a place in ``anchors`` that does not exist, an RD file that cannot be a curve, or no table at all.
    """
    kept = kept_tables()
    for table in kept:
        table.print()
    models = find_curves([RESULTS], anchors=False) if RESULTS.is_dir() else []
    against = find_curves(anchors or [RESULTS], anchors=None if anchors else True) if models or anchors else []
    comparison = compare_pairs(models, against, method)
    print_comparison(comparison)
    if comparison.has_rates:
        print("written:", *write_comparison(output or RESULTS, comparison))
    elif not kept:
        raise DataError(f"{RESULTS}/: no curves that can be compared; {program('evaluate')} makes RD files")
    else:
        found = f"{len(models)} RD files of models, {len(against)} of anchors"
        print(f"{RESULTS}/: nothing of yours to compare yet ({found});")
        print(f"{program('evaluate')} makes RD files of models, {program('anchors')} of codecs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the tables."""
    parser = Parser(
        prog=program("bdrate"),
        parents=[comparison_options()],
        description="Print how many percent more (+) or fewer (-) bits each TEST needs than ANCHOR at equal quality. "
        "Without files: the tables of a whole results folder, printed and written as bdrate.md, .tex, .csv and .json; "
        "without RESULTS also what the project itself has measured.",
        epilog="ANCHOR, TEST: RD JSON as written by src.evaluate, src.anchors or CompressAI, or folders of runs and "
        "sweeps, such as results/runs/jointiq; a sweep alone compares its curves. MS-SSIM is compared in dB. "
        "Columns: overlap is the range of quality that both curves cover, over which the mean is taken; range is its "
        "share of what either covers; points are those of anchor and test, at least four each.",
    )
    parser.add_argument("files", metavar="ANCHOR TEST", nargs="*", type=Path, help="an anchor, then what to judge")
    parser.add_argument(
        "--results", type=Path, nargs="+", default=[], help="folders or RD files of models, default: results"
    )
    parser.add_argument("--output", type=Path, help="folder for the tables, default: the results folder")
    parser.add_argument(
        "--metric", choices=(*METRICS, "both"), help="with ANCHOR TEST, default: both; folders have both"
    )
    parser.add_argument("--wandb", metavar="GROUP", help="record the tables as the closing run of this W&B group")
    parser.add_argument("--project", default=PROJECT, help="W&B project of that run, default: %(default)s")
    options = parser.parse_args(arguments)
    if options.metric and not options.files:
        raise ConfigError("--metric", options.metric, "with ANCHOR TEST alone; the tables of folders have both")
    if not options.files and not options.results and not options.wandb:
        compare_all_there_is(options.anchors, options.method, options.output)
        return 0
    if not options.files:
        places = (options.results, options.anchors, options.method, options.output)
        compare_folders(*places, options.wandb, options.project)
        return 0
    mixed = bool(options.results or options.anchors or options.wandb)
    curves = [] if mixed else given_curves(options.files)
    if len(curves) < 2:
        raise UserError("give either ANCHOR.json and at least one TEST.json, or --results and --anchors (and --wandb)")
    metrics = tuple(METRICS) if options.metric in (None, "both") else (options.metric,)
    print_rates([bd_table(compare(curves[0], curves[1:], metrics, options.method))])
    return 0


if __name__ == "__main__":
    run_cli(main)
