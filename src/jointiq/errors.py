"""Errors that are the user's to fix, and the one place that turns them into a line and an exit code."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Callable, Iterable, Iterator

EXIT_USER_ERROR = 2
#: Exit codes of a process that was stopped: by Ctrl-C, by SIGTERM.
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


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


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with code 2 and one line on stderr for a :class:`UserError`, with 130 on Ctrl-C."""
    try:
        yield
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED)


def run_cli(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit: 0 on success, 2 with one line on stderr for a :class:`UserError`, 130 on Ctrl-C."""
    with one_line_errors():
        code = main() or 0
    sys.exit(code)
