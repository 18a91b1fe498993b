"""``python -m src.evaluate``: see :mod:`jointiq.commands.evaluate`."""

from jointiq.commands.evaluate import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
