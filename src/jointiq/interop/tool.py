"""CompressAI's own command lines, run unmodified with our models registered."""

from __future__ import annotations

import runpy
import sys
import traceback

import torch

from jointiq.errors import UserError
from jointiq.interop.registries import register


def run_tool(module: str, program: str) -> None:
    """Run ``module`` as ``python -m module`` with the arguments of this process; its help calls itself ``program``.

    Raises:
        UserError: a file that cannot be read, or an image too small for MS-SSIM. All other errors are the tool's own.
    """
    register()
    sys.argv[0] = program
    try:
        runpy.run_module(module, run_name="__main__")
    except OSError as error:
        raise UserError(str(error)) from error
    except Exception as error:
        if _passed_through(error, torch.load.__code__.co_filename):
            raise UserError("the checkpoint is damaged, or not written by torch.save") from error
        if isinstance(error, AssertionError) and "Image size should be larger than" in str(error):
            raise UserError(
                f"{module} computes MS-SSIM of every image, which needs sides of more than 160 pixels; "
                "allowed: larger images, or src.evaluate, which leaves MS-SSIM out"
            ) from error
        raise


def _passed_through(error: Exception, source: str) -> bool:
    """Tell whether code of the file ``source`` was running: what torch raises depends on the bytes it stumbles over."""
    return any(frame.f_code.co_filename == source for frame, _ in traceback.walk_tb(error.__traceback__))
