"""Measure checkpoints by real files: ``python -m src.evaluate checkpoint=[CKPT] output=OUT.json``."""

from jointiq.commands.evaluate import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
