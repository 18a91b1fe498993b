"""``python -m src.status``: see :mod:`jointiq.commands.status`."""

from jointiq.commands.status import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
