"""CompressAI's two lists of image models, with ours in them.

CompressAI's tools do not look into its registry of models (``compressai.registry``), where ours have been since their
classes were defined. They use two dictionaries instead: ``compressai.zoo.image_models`` for the names that a command
line accepts and for pretrained models, and ``compressai.zoo.image.model_architectures`` for the class that loads a
checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, Self

import torch
from compressai.zoo import image_models
from compressai.zoo.image import model_architectures
from torch import Tensor, nn

from jointiq.errors import UserError
from jointiq.models import model_classes
from jointiq.models.base import LearnedCodec
from jointiq.models.compressai_codec import CompressAICodec

#: Networks that can run in 16 bits; the rest is the entropy model.
_NETWORKS = ("g_a", "entropy_model.h_a", "g_s", "enhancer")


class _InTools(LearnedCodec):
    """A model for CompressAI's tools, which load state dicts of any origin and call ``half``."""

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> Self:
        """Return the model that a state dict belongs to.

        Raises:
            UserError: not a state dict of this model.
        """
        name = cls.registered_name()
        stored = state_dict.get("_extra_state")
        if stored is None or json.loads(bytes(stored.tolist())).get("name") != name:
            raise UserError(f"this is no {name} checkpoint; allowed: a .pth.tar of such a model, written by src.export")
        return super().from_state_dict(state_dict)

    def half(self) -> Self:
        """Run the transforms and the enhancer in 16 bits. The entropy model stays as it is: it codes integers."""
        parts = dict(self.named_modules())
        for part in (parts[name] for name in _NETWORKS if name in parts):
            if next(part.parameters()).dtype != torch.float16:
                part.half().register_forward_pre_hook(_halve_input)
        return self


def _halve_input(_part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Halve the input of a part; between the parts all is 32-bit, because latents are rounded in 32 bits."""
    return (inputs[0].half(), *inputs[1:])


def _no_published_weights(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Refuse to download pretrained weights, in place of the function that CompressAI expects."""
    raise UserError("there are no published weights of this model; allowed: `checkpoint` with -p FILE.pth.tar")


def register() -> None:
    """Make our models known by name to CompressAI's tools in this process; call it before they run.

    CompressAI knows its own models already, and their ``.pth.tar`` is as it expects.
    """
    for name, model in model_classes().items():
        if not issubclass(model, CompressAICodec):
            image_models[name] = _no_published_weights
            model_architectures[name] = type(f"{model.__name__}InTools", (_InTools, model), {})
