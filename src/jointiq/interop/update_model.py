"""CompressAI's tool that names a checkpoint by its hash, with our models known to it.

python -m jointiq.interop.update_model MODEL.pth.tar -a jointiq -d DIR

It is ``python -m compressai.utils.update_model`` with all of its options.
"""

from __future__ import annotations

from jointiq.errors import run_cli
from jointiq.interop.tool import run_tool


def main() -> None:
    """Command line of ``python -m jointiq.interop.update_model``."""
    run_tool("compressai.utils.update_model", "python -m jointiq.interop.update_model")


if __name__ == "__main__":
    run_cli(main)
