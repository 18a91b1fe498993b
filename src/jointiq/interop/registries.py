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
from jointiq.models.jointiq import JointIQNet

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


class _AtQuantSteps(LearnedCodec):
    """A model of all rates as CompressAI's tools call its models of variable rate, whose names end in ``-vbr``.

    What they call quantisation steps (``--vbr_quantstep 90,50,10``) are qualities here; they pass on the inverse.
    """

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> Self:
        """Return the model that a state dict belongs to.

        Raises:
            UserError: a model of one rate.
        """
        model = super().from_state_dict(state_dict)
        if model.quality is None:
            raise UserError("this model has one rate; allowed with a name that ends in -vbr: one for all rates")
        return model

    def forward(self, x: Tensor, stage: int | None = None, inputscale: Any = None) -> dict[str, Any]:
        """Return what the model does at a quality."""
        del stage
        return LearnedCodec.forward(self._view(inputscale), x)

    def compress(self, x: Tensor, stage: int | None = None, s: int = 0, inputscale: Any = None) -> dict[str, Any]:  # type: ignore[override]
        """Code images at a quality."""
        del stage, s
        return LearnedCodec.compress(self._view(inputscale), x)

    def decompress(self, strings: list[list[bytes]], shape: Any, **_unused: Any) -> dict[str, Tensor]:
        """Decode images, whose strings say their quality."""
        return super().decompress(strings, shape)

    def _view(self, inputscale: Any) -> Self:
        return self if inputscale is None else self.at(float(1 / inputscale))


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
        if issubclass(model, JointIQNet) and "rates" in model.SETTINGS.names():
            image_models[f"{name}-vbr"] = _no_published_weights
            bases = (_AtQuantSteps, _InTools, model)
            model_architectures[f"{name}-vbr"] = type(f"{model.__name__}OfAllRates", bases, {})
