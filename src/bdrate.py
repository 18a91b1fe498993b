"""``python -m src.bdrate``: see :mod:`jointiq.commands.bdrate`."""

from jointiq.commands.bdrate import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
