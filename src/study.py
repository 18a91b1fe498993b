"""Run a table or figure of the papers again: ``python -m src.study NAME``."""

from jointiq.commands.study import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
