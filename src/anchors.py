"""Measure codecs such as JPEG and BPG: ``python -m src.anchors codecs=[jpeg,avif] output=DIR``."""

from jointiq.commands.anchors import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
