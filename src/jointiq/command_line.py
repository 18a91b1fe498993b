"""Names of commands, the parser of their options, and Hydra overrides quoted for a shell."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from typing import Any, NoReturn

from hydra.core.override_parser.types import Quote, QuotedString

from jointiq.configs import INSTALLED
from jointiq.errors import UserError

#: Starts a training in a process of its own; works in a checkout and from an installed package.
TRAIN = (sys.executable, "-m", "jointiq.commands.train")


def program(name: str) -> str:
    """How users call the command ``name``: ``python -m src.NAME`` in a checkout, ``jointiq NAME`` where installed."""
    return f"jointiq {name}" if INSTALLED else f"python -m src.{name}"


class Parser(argparse.ArgumentParser):
    """Parser of options that are typed in full; what it refuses is a :class:`UserError`, one line."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; allowed: see {self.prog} --help")


def command(**values: object) -> str:
    """Return the command line that trains with ``key=value ...``, quoted for a shell and for Hydra."""
    return f"{program('train')} {shlex.join(override(key, value) for key, value in values.items())}"


def override(key: str, value: object) -> str:
    """Return ``key=value`` for Hydra's command line, the value quoted where it has to be."""
    text = "null" if value is None else str(value)
    if re.fullmatch(r"[\w./+:%@-]+", text, re.ASCII):
        return f"{key}={text}"
    # A shell puts the whole into single quotes, inside which double ones are readable.
    quote = Quote.single if '"' in text else Quote.double
    return f"{key}={QuotedString(text, quote).with_quotes()}"
