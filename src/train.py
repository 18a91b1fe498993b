"""``python -m src.train``: see :mod:`jointiq.commands.train`."""

from jointiq.commands.train import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
