"""CompressAI's evaluation of models, with ours among them.

python -m jointiq.interop.eval_model checkpoint DIR -a jointiq -p MODEL.pth.tar

It is ``python -m compressai.utils.eval_model``, which knows no model but its own, with all of its options.
"""

from __future__ import annotations

from jointiq.errors import run_cli
from jointiq.interop.tool import run_tool


def main() -> None:
    """Command line of ``python -m jointiq.interop.eval_model``."""
    run_tool("compressai.utils.eval_model", "python -m jointiq.interop.eval_model")


if __name__ == "__main__":
    run_cli(main)
