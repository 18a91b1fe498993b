"""Errors that are the user's to fix, and the one place that turns them into a line and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from types import FrameType
from typing import NoReturn

EXIT_USER_ERROR = 2
#: Exit codes of a process that was stopped: by Ctrl-C, by SIGTERM, by a terminal that was closed.
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_HUNG_UP = 128 + signal.SIGHUP
_EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE
#: Refusals of the operating system that are the user's to deal with, even where no file is named.
_OF_THE_SYSTEM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.EMFILE)


class UserError(Exception):
    """A mistake the user can fix. Its message is one line that says what is wrong and what is allowed."""


class ConfigError(UserError, ValueError):
    """A configuration value that is not allowed."""

    def __init__(self, key: str, value: object, allowed: str | Iterable[object]) -> None:
        if not isinstance(allowed, str):
            allowed = "one of " + ", ".join(map(str, allowed))
        super().__init__(f"{key}={value!r} is not allowed; allowed: {allowed}")


def check_whole(key: str, value: object, smallest: int, largest: float = math.inf) -> None:
    """Refuse everything but a whole number of at least ``smallest`` and at most ``largest``.

    Raises:
        ConfigError: names the key, the value and the range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not smallest <= int(value) <= largest:
        limit = "up" if largest == math.inf else f"to {largest}"
        raise ConfigError(key, value, f"a whole number from {smallest} {limit}")


def nearest(key: str, keys: Iterable[str], count: int = 3) -> str:
    """Return ``"; nearest: A, B"`` for the ``keys`` whose last parts are most like that of ``key``; "" without any."""
    group, _, name = key.rpartition(".")
    by_name: dict[str, list[str]] = {}
    for one in dict.fromkeys(keys):
        by_name.setdefault(one.rpartition(".")[2], []).append(one)
    found = [one for close in difflib.get_close_matches(name, by_name, count) for one in by_name[close]]
    found.sort(key=lambda one: one.rpartition(".")[0] != group)
    return f"; nearest: {', '.join(found[:count])}" if found else ""


class BitstreamError(UserError):
    """A compressed file that is damaged, foreign, or was written by another model."""


class ModelError(UserError, ValueError):
    """Weights that cannot be used: damaged, or of a training that diverged."""


class DataError(UserError):
    """An image or a folder of images that cannot be used."""


def ignore_import_warnings() -> None:
    """Ignore what the import of CompressAI warns of: nothing that a user could change."""
    warnings.filterwarnings("ignore", r".*torch\.jit\.script.*", FutureWarning)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with code 2 and one line on stderr for a :class:`UserError`, with 130 on Ctrl-C.

    So is what the operating system refuses: a file that may not be read, a name that is too long, a full disk. A reader
    that closes the pipe early (``... | head -1``) ends the command without a word.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold what the terminal's encoding does not have.
            stream.reconfigure(errors="backslashreplace")
    ignore_import_warnings()
    in_main = threading.current_thread() is threading.main_thread()
    ours = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        try:
            yield
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.stdout.flush()
    except UserError as error:
        _fail(error)
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.filename is None and error.errno not in _OF_THE_SYSTEM:
            raise
        about = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _fail(about + (error.strerror or str(error)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or end the process at once while a module is imported.

    An import that is cut in its middle ends in a traceback, or in an abort where it is PyTorch's, which takes seconds.
    """
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    if any(getattr(spec, "_initializing", False) for spec in specs):
        os.write(2, b"interrupted\n")
        os._exit(EXIT_INTERRUPTED)
    signal.default_int_handler(number, frame)


def run_cli(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with the code that it returns, 0 for none; see :func:`one_line_errors`."""
    with one_line_errors():
        code = main() or 0
    sys.exit(code)


def _fail(problem: object) -> NoReturn:
    with contextlib.suppress(OSError):  # whoever cannot be told still gets the exit code
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr, flush=True)
    sys.exit(EXIT_USER_ERROR)
