"""``python -m src.codec``: see :mod:`jointiq.commands.codec`."""

from jointiq.commands.codec import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
