"""``python -m src.complexity``: see :mod:`jointiq.commands.complexity`."""

from jointiq.commands.complexity import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
