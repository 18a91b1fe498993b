"""Count and time what a model costs: ``python -m src.complexity checkpoint=CKPT``."""

from jointiq.commands.complexity import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
