"""``python -m src.dashboard``: see :mod:`jointiq.commands.dashboard`."""

from jointiq.commands.dashboard import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
