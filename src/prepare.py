"""``python -m src.prepare``: see :mod:`jointiq.commands.prepare`."""

from jointiq.commands.prepare import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
