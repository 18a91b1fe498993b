"""The command ``jointiq NAME ...``: ``jointiq train``, ``jointiq encode``, ...; the same as ``python -m src.NAME``."""

from __future__ import annotations

import os
import pkgutil
import sys

from jointiq import commands

#: What ``codec`` does, which needs no further name.
_CODEC = ("encode", "decode", "info", "verify")


def main() -> None:
    """Hand the command line over to the command that it names."""
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    name, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in _CODEC:
        name, rest = "codec", [name, *rest]
    if name not in names:
        print(f"usage: jointiq NAME ..., NAME one of {', '.join((*_CODEC, *names))}; jointiq NAME --help")
        sys.exit(0 if name in ("-h", "--help") else 2)
    # In place of this process: the processes of a distributed training repeat the command line.
    os.execv(sys.executable, [sys.executable, "-m", f"jointiq.commands.{name}", *rest])


if __name__ == "__main__":
    main()
