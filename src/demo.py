"""Train for minutes, code photographs, compare with JPEG: ``python -m src.demo``."""

from jointiq.commands.demo import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
