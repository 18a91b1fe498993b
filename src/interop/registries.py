"""CompressAI's two lists of image models, with ours in them.

CompressAI's tools do not look into its registry of models (``compressai.registry``), where ours has been since its
class was defined. They use two dictionaries instead: ``compressai.zoo.image_models`` for the names that a command line
accepts and for pretrained models, and ``compressai.zoo.image.model_architectures`` for the class that loads a
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from compressai.zoo import image_models
from compressai.zoo.image import model_architectures
from torch import Tensor, nn

from src.errors import UserError
from src.models.jointiq import JointIQNet

NAME = "jointiq"


class CompressAIJointIQNet(JointIQNet):
    """JointIQ-Net as CompressAI's tools treat a model: they bring state dicts of any origin, and halve it."""

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> JointIQNet:
        """As in :class:`JointIQNet`.

        Raises:
            UserError: not a state dict of ours.
        """
        if "_extra_state" not in state_dict:
            raise UserError(f"this is no {NAME} checkpoint; allowed: a .pth.tar written by src.export")
        return super().from_state_dict(state_dict)

    def half(self) -> CompressAIJointIQNet:
        """Run the transforms and the enhancer in 16 bits. The entropy model stays as it is: it codes integers."""
        for part in (self.g_a, self.h_a, self.g_s, self.enhancer):
            if part is not None and next(part.parameters()).dtype != torch.float16:
                part.half().register_forward_pre_hook(_halve_input)
        return self


def _halve_input(_part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What reaches a part from another is 32-bit: latents are rounded in 32 bits."""
    return (inputs[0].half(), *inputs[1:])


def _no_published_weights(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Stand where CompressAI keeps the functions that download pretrained weights."""
    raise UserError(f"there are no published weights of {NAME}; allowed: `checkpoint` with -p FILE.pth.tar")


def register() -> None:
    """Make ``jointiq`` known to CompressAI's tools in this process; to be called before they run."""
    image_models[NAME] = _no_published_weights
    model_architectures[NAME] = CompressAIJointIQNet
