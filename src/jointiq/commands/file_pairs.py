"""Apply a command to one file or a whole folder: pair its inputs with its outputs, and print a line for each."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from jointiq.console import progress_bar
from jointiq.errors import EXIT_USER_ERROR, DataError, UserError

#: Lists the files of a folder; calls the function for each subfolder that cannot be read.
ListFolder = Callable[[Path, Callable[[OSError], object]], list[Path]]

# Failed files that the last line names.
_NAMED = 5


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, in spite of which the file at hand was finished; its text is the line about that file."""


@dataclass(frozen=True)
class FilePairs:
    """Input and output files of a command.

    Attributes:
        pairs: input and output.
        of_folder: whether the input was a folder.
        unreadable: its subfolders that cannot be read, each with the reason.
    """

    pairs: list[tuple[Path, Path]]
    of_folder: bool
    unreadable: list[str]

    def single(self) -> list[tuple[Path, Path]]:
        """Return the pair of a command for one file: it is looked at before the seconds that a model takes to load."""
        return [] if self.of_folder else self.pairs


def pair_files(source: str, target: str | None, suffix: str, list_folder: ListFolder) -> FilePairs:
    """Pair inputs with outputs: one file, or all files of a folder, with their paths inside it kept.

    Args:
        source: the input, a file or a folder.
        target: the output; None: nothing is written, and each input is paired with itself.
        suffix: of the outputs.
        list_folder: lists the files of a folder.

    Raises:
        DataError: the input is missing, the output has the wrong suffix, or two inputs would write one output.
    """
    start = Path(source)
    end = start if target is None else Path(target)
    try:
        is_folder = start.is_dir()
        if not start.exists():
            raise DataError(f"{start}: no such file or folder")
    except OSError as error:
        raise DataError(f"{start}: {error.strerror or error}") from error
    if not is_folder:
        if target is not None and end.suffix.lower() != suffix:
            raise DataError(f"the output {end} must end in {suffix}")
        return FilePairs([(start, end)], False, [])
    unreadable: list[str] = []
    sources = list_folder(start, lambda error: unreadable.append(f"{error.filename}: {error.strerror}"))
    if target is None:
        return FilePairs([(path, path) for path in sources], True, unreadable)
    pairs = [(path, (end / path.relative_to(start)).with_suffix(suffix)) for path in sources]
    writers: dict[str, Path] = {}
    for path, output in pairs:
        # Some file systems tell names apart neither by case nor by the form of an accent.
        key = unicodedata.normalize("NFC", str(output)).casefold()
        if key in writers:
            raise DataError(f"{writers[key]} and {path} would both be written to {output}; rename one of them")
        writers[key] = path
    return FilePairs(pairs, True, unreadable)


def run_pairs(files: FilePairs, one: Callable[[Path, Path], str], label: str, progress: Progress | None = None) -> int:
    """Call ``one`` for each pair and print what it returns; return the exit code.

    With several pairs, a progress bar called ``label`` is shown, a pair that fails does not stop the others, and a last
    line sums up, also after Ctrl-C.

    Args:
        progress: shown as well; ``one`` may move tasks of its own in it.

    Raises:
        KeyboardInterrupt: Ctrl-C; after :class:`Interrupted` its line has been printed.
    """
    shown = progress_bar() if progress is None else progress
    if len(files.pairs) == 1 and not files.unreadable:
        # No bar where there is nothing to move in it, and no line of one in a log.
        with shown if shown.tasks and shown.console.is_terminal else contextlib.nullcontext():
            line, stopped = _finished(one, *files.pairs[0])
        print(line)
        if stopped:
            raise KeyboardInterrupt
        return 0
    done = 0
    failed: list[Path] = []

    def summary() -> str:
        parts = [f"{done} of {len(files.pairs)} files done"]
        if failed:
            more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            parts.append(f"{len(failed)} failed ({', '.join(map(str, failed[:_NAMED]))}{more})")
        if files.unreadable:
            parts.append(f"{len(files.unreadable)} folders cannot be read")
        left_out = len(files.pairs) - done - len(failed)
        return ", ".join([*parts, f"{left_out} left out"] if left_out else parts)

    with shown:
        task = shown.add_task(label, total=len(files.pairs), note="")

        def say(line: str) -> None:
            # Brackets in a name are no markup.
            shown.console.print(line, markup=False, highlight=False, soft_wrap=True)

        for problem in files.unreadable:
            say(f"error: {problem}")
        try:
            for source, target in files.pairs:
                stopped = False
                try:
                    line, stopped = _finished(one, source, target)
                    done += 1
                except (UserError, OSError) as error:
                    failed.append(source)
                    line = f"error: {error}"
                shown.advance(task)
                say(line)
                if stopped:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            say(summary())
            raise
    print(summary())
    return EXIT_USER_ERROR if failed or files.unreadable else 0


def _finished(one: Callable[[Path, Path], str], source: Path, target: Path) -> tuple[str, bool]:
    """Return the line about a pair, and whether Ctrl-C ended it early."""
    try:
        return one(source, target), False
    except Interrupted as stop:
        return str(stop), True
