"""``python -m src.anchors``: see :mod:`jointiq.commands.anchors`."""

from jointiq.commands.anchors import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
