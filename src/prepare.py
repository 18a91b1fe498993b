"""Cut training patches out of folders of images: ``python -m src.prepare DIR --output DIR``."""

from jointiq.commands.prepare import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
