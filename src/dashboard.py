"""Save a workspace of Weights & Biases: ``python -m src.dashboard``."""

from jointiq.commands.dashboard import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
