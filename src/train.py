"""Train a model: ``python -m src.train +experiment=NAME``."""

from jointiq.commands.train import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
