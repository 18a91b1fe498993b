"""Turn a checkpoint into one file for everyone: ``python -m src.export CKPT MODEL.safetensors``."""

from jointiq.commands.export import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
