"""CompressAI's own command lines, run unmodified with our models registered."""

from __future__ import annotations

import runpy
import sys
import traceback

import torch

from jointiq.errors import UserError
from jointiq.interop.registries import register

#: Functions of CompressAI, and ours under its contract, that load a checkpoint's contents.
_TAKING = ("load_checkpoint", "load_state_dict", "from_state_dict")


def run_tool(module: str, program: str) -> None:
    """Run ``module`` as ``python -m module`` with the arguments of this process; its help names ``program``.

    Raises:
        UserError: a file that cannot be read, that holds no model or another one, or an image too small for MS-SSIM.
            All other errors are the tool's own.
    """
    register()
    sys.argv[0] = program
    try:
        runpy.run_module(module, run_name="__main__")
    except UserError:
        raise
    except OSError as error:
        raise UserError(str(error)) from error
    except Exception as error:
        # What is raised depends on the file, so errors are told apart by where they are raised.
        frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        if torch.load.__code__ in frames:
            raise UserError("the checkpoint is damaged, or not written by torch.save") from error
        if any(code.co_name in _TAKING for code in frames):
            raise UserError("the checkpoint does not hold a model of the architecture that -a names") from error
        if isinstance(error, RuntimeError) and "is not a valid file" in str(error):
            raise UserError(str(error)) from error
        if isinstance(error, AssertionError) and "Image size should be larger than" in str(error):
            raise UserError(
                f"{module} computes MS-SSIM of every image, which needs sides of more than 160 pixels; "
                "allowed: larger images, or src.evaluate, which leaves MS-SSIM out"
            ) from error
        raise
