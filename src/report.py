"""Make one HTML page of results: ``python -m src.report results``."""

from jointiq.commands.report import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
