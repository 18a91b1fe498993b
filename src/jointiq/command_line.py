"""Command lines: what users call a command, and those of ``src.train``, quoted for Hydra and a shell."""

from __future__ import annotations

import re
import shlex

from jointiq.configs import INSTALLED


def program(name: str) -> str:
    """How users call the command ``name``: ``python -m src.NAME`` in a checkout, ``jointiq NAME`` where installed."""
    return f"jointiq {name}" if INSTALLED else f"python -m src.{name}"


def command(**values: object) -> str:
    """The command line that trains with ``key=value ...``, quoted for a shell and for Hydra."""
    return f"{program('train')} {shlex.join(override(key, value) for key, value in values.items())}"


def override(key: str, value: object) -> str:
    """``key=value`` for Hydra's command line, the value quoted where it has to be."""
    text = str(value)
    if not re.fullmatch(r"[\w./+:%@-]+", text):
        # In Hydra's quotes a backslash is itself, unless it stands before a quote.
        text = "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), text) + "'"
    return f"{key}={text}"
