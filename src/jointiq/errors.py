"""Errors that are the user's to fix, and the one place that turns them into a line and an exit code."""

from __future__ import annotations

import errno
import io
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable

EXIT_USER_ERROR = 2
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
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        limit = "up" if largest == math.inf else f"to {largest}"
        raise ConfigError(key, value, f"a whole number from {smallest} {limit}")


class BitstreamError(UserError):
    """A compressed file that is damaged, foreign, or was written by another model."""


class ModelError(UserError, ValueError):
    """Weights that cannot be used: damaged, or of a training that diverged."""


class DataError(UserError):
    """An image or a folder of images that cannot be used."""


def run_cli(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit: 0 on success, 2 with one line on stderr for a :class:`UserError`, 130 on Ctrl-C.

    So is what the operating system refuses: a file that may not be read, a name that is too long, a full disk. A reader
    that closes the pipe early (``... | head -1``) ends the command without a word.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold what the terminal's encoding does not have.
            stream.reconfigure(errors="backslashreplace")
    # CompressAI's, at import: nothing that a user could change.
    warnings.filterwarnings("ignore", r".*torch\.jit\.script.*", FutureWarning)
    try:
        try:
            code = main() or 0
        finally:
            sys.stdout.flush()
    except UserError as error:
        code = _fail(error)
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _EXIT_BROKEN_PIPE
    except OSError as error:
        if error.filename is None and error.errno not in _OF_THE_SYSTEM:
            raise
        about = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        code = _fail(about + (error.strerror or str(error)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def _fail(problem: object) -> int:
    print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    return EXIT_USER_ERROR
