"""What a person at the keyboard sees: tables and progress bars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

NOTHING = "–"
#: Seconds between two lines of a progress bar in a log.
LINE_SECONDS = 30.0
#: Characters that a column of names keeps before a narrow terminal leaves other columns out.
_NAME = 12
#: Characters between two columns, and around the table.
_GAP, _EDGES = 3, 2


class _Bar(Progress):
    """A bar that, where there is no terminal, leaves a line of itself now and then: the log of a job on a cluster."""

    _line_time = 0.0
    _line_done = 0.0

    def start(self) -> None:
        self._line_time = self.get_time()
        super().start()

    def update(self, *args: Any, **changes: Any) -> None:
        super().update(*args, **changes)
        self._write_line()

    def advance(self, *args: Any, **changes: Any) -> None:
        super().advance(*args, **changes)
        self._write_line()

    def _write_line(self) -> None:
        """Write a line if the last one is old and there is something new to say; the end says it by itself."""
        if self.console.is_terminal or not self.live.is_started or self.finished:
            return
        now = self.get_time()
        if now - self._line_time < LINE_SECONDS:
            return
        done = sum(task.completed for task in self.tasks if task.visible)
        if done != self._line_done:
            self._line_time, self._line_done = now, done
            self.console.print(self.get_renderable())


def progress_bar() -> Progress:
    """Return a progress bar on stderr with a count, the time gone, the time left, and a note, cut to 24 characters.

    Where the terminal is narrow, the bar gives way and the numbers stay. In a file it is a line, twice a minute.
    """
    return _Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[note]}",
            markup=False,  # names of files may have brackets
            table_column=Column(no_wrap=True, overflow="ellipsis", max_width=24),
        ),
        console=Console(stderr=True),
    )


@dataclass
class Table:
    """A table of ready-made texts, none of which is markup.

    Attributes:
        left: the first columns, names, which are aligned left and folded where they are long; numbers stand right.
        breaks: row counts after which a group ends.
        optional: headings of columns that a narrow terminal leaves out, the first one first.
        texts: the last columns, free text, which is aligned left and folded at words.
        whole: columns are left out before a name is folded.
    """

    title: str
    header: Sequence[str]
    left: int = 1
    rows: list[Sequence[str]] = field(default_factory=list)
    breaks: set[int] = field(default_factory=set)
    optional: Sequence[str] = ()
    texts: int = 0
    whole: bool = False

    def end_group(self) -> None:
        """Close a group of rows: a line is drawn below it in the terminal."""
        self.breaks.add(len(self.rows))

    def print(self, console: Console | None = None) -> None:
        """Print what fits to a terminal, with a line that names the columns left out; all of it to anything else."""
        console = console or Console()
        columns, left_out = list(range(len(self.header))), []
        if not console.is_terminal:
            console = Console(file=console.file, width=max(160, self._width(columns, fold=False) + self._hidden()))
        for heading in self.optional:
            if self._width(columns, fold=not self.whole) > console.width and heading in self.header:
                columns.remove(list(self.header).index(heading))
                left_out.append(heading)
        fits = self._width(columns) <= console.width
        names_fit = self.whole and self._width(columns, fold=False) <= console.width
        table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
        table.title = Text(self.title, style="table.title")
        for i in columns:
            is_name, is_text = i < self.left, i >= len(self.header) - self.texts
            # Numbers are never folded where that can be helped.
            table.add_column(
                Text(self.header[i]), "", justify="left" if is_name or is_text else "right", overflow="fold",
                no_wrap=fits and not is_text and (names_fit or not is_name),
            )  # fmt: skip
        for number, row in enumerate(self.rows, start=1):
            table.add_row(*(Text(row[i]) for i in columns), end_section=number in self.breaks)
        console.print(table)
        if left_out:
            console.print(f"too narrow for: {', '.join(left_out)}", style="dim", markup=False, highlight=False)

    def _width(self, columns: Sequence[int], fold: bool = True) -> int:
        """Characters of a line with these columns, names folded or not, texts folded."""
        widths = [max(cell_len(cells[i]) for cells in (self.header, *self.rows)) for i in columns]
        names = sum(i < self.left for i in columns)
        if fold:
            widths[:names] = [min(width, _NAME) for width in widths[:names]]
        if self.texts:
            widths[-self.texts :] = [min(width, _NAME) for width in widths[-self.texts :]]
        return sum(widths) + _GAP * (len(widths) - 1) + _EDGES

    def _hidden(self) -> int:
        """Characters of the texts that :meth:`_width` folds away."""
        texts = range(len(self.header) - self.texts, len(self.header))
        return sum(max(0, *(cell_len(row[i]) - _NAME for row in self.rows)) for i in texts if self.rows)

    def markdown(self) -> str:
        """Return the table as Markdown with its title as a heading."""
        rule = [":--" if i < self.left else "--:" for i in range(len(self.header))]
        texts = [[plain_markdown(cell) for cell in cells] for cells in (self.header, *self.rows)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (texts[0], rule, *texts[1:])]
        return "\n".join([f"# {plain_markdown(self.title)}", "", *lines, ""])

    def latex(self) -> str:
        """Return the table as LaTeX (package booktabs), without a float around it; the title is a comment above."""
        lines = [" & ".join(plain_latex(cell) for cell in cells) + r" \\" for cells in (self.header, *self.rows)]
        for after in sorted(self.breaks - {len(self.rows)}, reverse=True):
            lines.insert(after + 1, r"\midrule")
        columns = "l" * self.left + "r" * (len(self.header) - self.left)
        begin = [f"% {' '.join(self.title.split())}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        return "\n".join([*begin, lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}", ""])


def plain_latex(text: str) -> str:
    """A text in LaTeX: characters that mean something are escaped, and signs of numbers become minus signs."""
    escaped = re.sub(r"[&%$#_{}]", r"\\\g<0>", " ".join(text.split()).replace("\\", "/"))
    escaped = escaped.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}").replace(NOTHING, "--")
    return re.sub(r"^([+-])(?=\d)", r"$\g<1>$", escaped)


def plain_markdown(text: str) -> str:
    """A text in Markdown: in a table a bar or a new line would end the cell, and an angle bracket begins a tag."""
    return re.sub(r"[\r\n]+", " ", text).replace("|", r"\|").replace("<", "&lt;")


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """Format a number; a dash for one that does not exist."""
    return NOTHING if value is None else f"{value:{'+' if sign else ''}.{digits}f}"
