"""``python -m src.study``: see :mod:`jointiq.commands.study`."""

from jointiq.commands.study import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
