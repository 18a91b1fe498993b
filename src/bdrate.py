"""Compare rate-distortion curves by BD-rate: ``python -m src.bdrate ANCHOR.json TEST.json``."""

from jointiq.commands.bdrate import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
