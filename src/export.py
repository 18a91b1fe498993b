"""``python -m src.export``: see :mod:`jointiq.commands.export`."""

from jointiq.commands.export import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
