"""Write a report as one HTML file: ``python -m src.report RESULTS --images DIR --output report.html``.

It has plots, BD-rates, RD points, every image's numbers, a viewer of decoded pictures at equal rate, and the origin of
all numbers. The file needs no network and no other file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jointiq.command_line import Parser, program
from jointiq.console import progress_bar
from jointiq.errors import ConfigError, run_cli
from jointiq.evaluation.bd_rate import METRICS
from jointiq.evaluation.comparison import comparison_options
from jointiq.evaluation.report.gallery import FORMATS, MEGABYTE, Gallery, Packing, gallery
from jointiq.evaluation.report.sources import Sources, read_sources
from jointiq.evaluation.tables import points_csv
from jointiq.files import write_text

RESULTS = Path("results")


def pictures_of(sources: Sources, packing: Packing, show: Sequence[str]) -> Gallery:
    """Return the viewer's pictures, with a progress bar while they are packed."""
    with progress_bar() as progress:
        task = progress.add_task("pictures", total=None, note="", visible=False)

        def advance(image: str, total: int) -> None:
            progress.update(task, total=total, visible=True, note=image)
            progress.advance(task)

        return gallery(sources, packing, show, advance)


def report(sources: Sources, output: Path, title: str, packing: Packing, show: Sequence[str] = ()) -> list[Path]:
    """Write the page, and beside it the plots (``-psnr`` and ``-ms-ssim``, PNG, SVG and PDF) and the points (CSV).

    Returns:
        The paths written.
    """
    # Imported late, so that --help and a mistyped command do not wait for Matplotlib.
    from jointiq.evaluation.plots.rd_plot import PAPER, rd_plot
    from jointiq.evaluation.report.page import curves, render

    page = render(title, sources, pictures_of(sources, packing, show), packing)
    ours, theirs = curves(sources)
    points = output.with_suffix(".csv")
    table = points_csv([("model", curve) for curve in ours] + [("anchor", curve) for curve in theirs])
    plots = [
        rd_plot(output.with_name(f"{output.stem}-{metric}"), ours, theirs, metric, suffixes=PAPER) for metric in METRICS
    ]
    # Last, so that there is no page of a report that has failed.
    write_text(output, page)
    write_text(points, table)
    return [output, points, *(path for paths in plots for path in paths)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and write the report."""
    parser = Parser(
        prog=program("report"),
        parents=[comparison_options()],
        description="Write one HTML file with RD plots, BD-rates, tables, per-image plots, and a viewer that compares "
        "decoded pictures at equal rate. Beside it: the plots as PNG, SVG and PDF, the points as CSV.",
        epilog="Pictures are there where src.evaluate and src.anchors ran with pictures=DIR.",
    )
    parser.add_argument(
        "results", type=Path, nargs="*", help="folders or RD files of models, default: results", metavar="RESULTS"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the original images, for the viewer")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "report.html", metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--title", default="Rate-distortion report", help="default: %(default)s")
    parser.add_argument("--show", nargs="+", default=[], metavar="IMAGE", help="images in the viewer, default: all")
    parser.add_argument(
        "--max-mb", type=float, default=64.0, metavar="MB", help="most megabytes of pictures, default: %(default)s"
    )
    parser.add_argument(
        "--max-side",
        type=int,
        default=1024,
        metavar="PIXELS",
        help="of larger pictures the middle part is shown, default: %(default)s",
    )
    parser.add_argument(
        "--picture-format",
        choices=FORMATS,
        default="png",
        help="png: exactly as decoded; jpeg: quality 95, about a third of the size; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    if options.output.suffix != ".html":
        raise ConfigError("--output", str(options.output), "a path ending in .html")
    if not options.max_mb > 0:
        raise ConfigError("--max-mb", options.max_mb, "a number above 0")
    if options.max_side < 16:
        raise ConfigError("--max-side", options.max_side, "a whole number from 16 up")
    sources = read_sources(options.results or [RESULTS], options.anchors, options.images, options.method)
    packing = Packing(options.picture_format, options.max_side, options.max_mb)
    written = report(sources, options.output, options.title, packing, options.show)
    print("written:", *written)
    print(f"{options.output}: {options.output.stat().st_size / MEGABYTE:.1f} MB")
    return 0


if __name__ == "__main__":
    run_cli(main)
