"""What a person at the keyboard sees: tables and progress bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.table import Table as RichTable

NOTHING = "–"


def progress_bar() -> Progress:
    """Give a progress bar on stderr with a count, the time gone, the time left, and a note, cut to 24 characters.

    Where the terminal is narrow, the bar gives way and the numbers stay.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=24)),
        console=Console(stderr=True),
    )


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
