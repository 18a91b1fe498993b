"""Tables for the terminal (rich), Markdown and CSV, from one description of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from src.evaluation.bd_rate import BDRate
from src.evaluation.metrics import ms_ssim_db
from src.evaluation.rd import MS_SSIM, PSNR, RDCurve

NOTHING = "–"


@dataclass
class Table:
    """A table of ready-made texts; the first ``left`` columns are aligned left, numbers right.

    ``breaks`` holds the row counts after which a group ends.
    """

    title: str
    header: Sequence[str]
    left: int = 1
    rows: list[Sequence[str]] = field(default_factory=list)
    breaks: set[int] = field(default_factory=set)

    def end_group(self) -> None:
        """Close a group of rows: a line is drawn below it in the terminal."""
        self.breaks.add(len(self.rows))

    def print(self, console: Console | None = None) -> None:
        """Print to the terminal; where output is no terminal, wide enough for every column."""
        console = console or Console()
        if not console.is_terminal:
            console = Console(file=console.file, width=160)
        table = RichTable(title=self.title, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
        for i, name in enumerate(self.header):
            table.add_column(name, justify="left" if i < self.left else "right", overflow="fold")
        for i, row in enumerate(self.rows, start=1):
            table.add_row(*row, end_section=i in self.breaks)
        console.print(table)

    def markdown(self) -> str:
        """Give the table as Markdown with its title as a heading."""
        rule = [":--" if i < self.left else "--:" for i in range(len(self.header))]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows)]
        return "\n".join([f"# {self.title}", "", *lines, ""])


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """Format a number; a dash for one that does not exist."""
    return NOTHING if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def rd_table(curve: RDCurve) -> Table:
    """Give one line per RD point: rates, quality, seconds per image."""
    table = Table(
        f"{curve.name}: mean over {len({row.get('image') for row in curve.images})} images",
        ("point", "bpp", "payload", "estimate", "PSNR dB", "before Q", "MS-SSIM", "dB", "enc s", "dec s"),
    )
    columns = [
        ("bpp", 4),
        ("bpp-payload", 4),
        ("bpp-estimate", 4),
        (PSNR, 2),
        ("psnr-rgb-mid", 2),
        (MS_SSIM, 4),
        ("db", 2),
        ("encoding_time", 2),
        ("decoding_time", 2),
    ]
    results = dict(curve.results)
    if MS_SSIM in results:
        results["db"] = tuple(ms_ssim_db(value) for value in results[MS_SSIM])
    for i, parameter in enumerate(curve.parameter):
        cells = [number(results[key][i], digits) if key in results else NOTHING for key, digits in columns]
        table.rows.append((str(parameter), *cells))
    return table


def bd_table(rates: Sequence[BDRate]) -> Table:
    """Give one line per BD-rate, with everything needed to quote it."""
    table = Table(
        "BD-rate (negative: fewer bits than the anchor at equal quality)",
        ("anchor", "test", "metric", "method", "BD-rate %", "overlap dB", "of range", "points"),
        left=4,
    )
    for rate in rates:
        table.rows.append(
            (
                rate.anchor,
                rate.test,
                rate.metric,
                rate.method,
                number(rate.percent, 2, sign=True),
                f"{rate.low:.2f} to {rate.high:.2f}",
                f"{100 * rate.overlap:.0f} %",
                f"{rate.anchor_points} / {rate.test_points}",
            )
        )
    return table
