"""Turn images into ``.jiq`` files and back: ``python -m src.codec encode IN.png OUT.jiq``."""

from jointiq.commands.codec import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
