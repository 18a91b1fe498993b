"""BD-rate of RD files against an anchor: ``python -m src.bdrate ANCHOR.json TEST.json [TEST.json ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from src.errors import DataError, run_cli
from src.evaluation.bd_rate import METHODS, METRICS, BDRate, bd_rate
from src.evaluation.rd import RDCurve, read_rd
from src.evaluation.tables import bd_table


def compare(anchor: RDCurve, tests: Sequence[RDCurve], metrics: Sequence[str], method: str) -> list[BDRate]:
    """Compute every BD-rate asked for; of several metrics, one that a pair cannot give is told on stderr.

    Raises:
        DataError: a pair gives none of the metrics.
    """
    rates = []
    for test in tests:
        failed: list[DataError] = []
        for metric in metrics:
            try:
                rates.append(bd_rate(anchor, test, metric, method))
            except DataError as error:
                failed.append(error)
        if len(failed) == len(metrics):
            raise failed[0]
        for problem in failed:
            print(f"left out: {problem}", file=sys.stderr)
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m src.bdrate",
        description="Print how many percent more (+) or fewer (-) bits each TEST needs than ANCHOR at equal quality.",
        epilog="Files: RD JSON as written by src.evaluate or by CompressAI. MS-SSIM is compared in dB.",
    )
    parser.add_argument("anchor", metavar="ANCHOR.json")
    parser.add_argument("tests", metavar="TEST.json", nargs="+")
    parser.add_argument("--metric", choices=(*METRICS, "both"), default="both", help="default: %(default)s")
    parser.add_argument("--method", choices=METHODS, default="pchip", help="interpolation, default: %(default)s")
    options = parser.parse_args(arguments)
    metrics = tuple(METRICS) if options.metric == "both" else (options.metric,)
    curves = [read_rd(path) for path in (options.anchor, *options.tests)]
    bd_table(compare(curves[0], curves[1:], metrics, options.method)).print()
    return 0


if __name__ == "__main__":
    run_cli(main)
