"""``python -m src.report``: see :mod:`jointiq.commands.report`."""

from jointiq.commands.report import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
