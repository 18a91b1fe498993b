"""Tell how runs and sweeps stand: ``python -m src.status [FOLDER ...]``."""

from jointiq.commands.status import main
from jointiq.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
