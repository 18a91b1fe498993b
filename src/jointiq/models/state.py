"""A model's settings, and its weights in files: a state dict holds the configuration, so that it names its model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from compressai.models import CompressionModel
from compressai.registry import MODELS
from torch import Tensor

from jointiq.entropy_models.base import EntropyModel
from jointiq.errors import ConfigError
from jointiq.parts import Settings

#: Prefix of the entropy model's weights in a state dict. Exports leave it out, and so do files from before it was a
#: module.
ENTROPY_MODEL = "entropy_model."
#: Name of the configuration in a state dict.
CONFIG = "_extra_state"


class StoredModel(CompressionModel):
    """A CompressAI model that is made from its settings and whose state dict holds them.

    Attributes:
        settings: of the model itself, checked.
        config: ``name`` and all arguments of the constructor, ready for JSON.
        entropy_model: the module that computes likelihoods of latents and codes them; None where it is CompressAI's.
        derived: what was computed from the weights and stands until they change, by name; views of a model share it.
    """

    #: The class of the settings.
    SETTINGS: ClassVar[type[Settings]] = Settings
    #: The float networks of a decoder; with the integers of the entropy model they make the model's fingerprint.
    DECODER: ClassVar[tuple[str, ...]] = ("g_s", "gain_s", "enhancer")

    settings: Settings
    config: dict[str, Any]
    entropy_model: EntropyModel | None
    derived: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.derived = {}

    @classmethod
    def registered_name(cls) -> str:
        """Return the name that the class, or the nearest it derives from, is registered by."""
        names = {model: name for name, model in MODELS.items()}
        return next(names[base] for base in cls.__mro__ if base in names)

    # ---- settings

    def trunk_settings(self) -> list[str]:
        """Return the settings of the transforms: of all but the entropy model and the enhancer."""
        return [name for name in self.settings.as_dict() if name not in self.staged()]

    def staged(self) -> list[str]:
        """Return the settings that differ between the stages of one training."""
        return self.settings.names("staged")

    def shapeless(self) -> list[str]:
        """Return the settings that change how the model works, but no weight's shape."""
        return self.settings.names("shapeless")

    # ---- weights

    def integer_tensors(self) -> dict[str, Tensor]:
        """Return the integers that define the entropy model, by name; empty where the coder works on floats."""
        return {}

    def restore_integers(self, tensors: dict[str, Tensor]) -> None:
        """Take over the integers of :meth:`integer_tensors`, and set the float weights to what they stand for."""

    def weights(self) -> dict[str, Tensor]:
        """Return all weights and buffers by their names in files: those of the state dict without ``ENTROPY_MODEL``."""
        return {name.removeprefix(ENTROPY_MODEL): value for name, value in self.state_dict().items()}

    def is_float(self, name: str) -> bool:
        """Tell whether an export has to hold the weight ``name`` of :meth:`weights`, for which no integers stand."""
        part, model = name.partition(".")[0], self.entropy_model
        if name == CONFIG or model is None:
            return name != CONFIG
        return part in model.FLOAT or part not in dict(model.named_children())

    def is_decoder(self, name: str) -> bool:
        """Tell whether a decoder reads the weight ``name`` of :meth:`weights` as floats."""
        return name.partition(".")[0] in self.DECODER

    def forget(self) -> None:
        """Drop all that was derived from the weights; called when they change."""
        self.derived.clear()

    def train(self, mode: bool = True) -> Self:
        """Switch as ``nn.Module`` does, and :meth:`forget`, because training changes the weights."""
        if mode:
            self.forget()
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> Any:
        self.forget()
        return super().load_state_dict(state_dict, strict=strict)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Reached by every way to load weights, also through a parent module. Files from before the entropy model was a
        # module of its own have its weights under the names of today without its name in front.
        if self.entropy_model is not None:
            for name in self.entropy_model.state_dict():
                if prefix + name in state_dict:
                    state_dict[f"{prefix}{ENTROPY_MODEL}{name}"] = state_dict.pop(prefix + name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ---- state dicts

    def get_extra_state(self) -> Tensor:
        """Return the configuration as bytes of JSON: a state dict names its model."""
        return torch.frombuffer(bytearray(json.dumps(self.config).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse a state whose entropy model works differently although its tensors have the same shapes."""
        # Also reached when weights are loaded through a parent module, which passes load_state_dict by.
        self.forget()
        stored = json.loads(bytes(state.tolist()))
        for key in self.shapeless():
            if stored.get(key) != self.config.get(key):
                raise ConfigError(f"model.{key}", self.config.get(key), f"{stored.get(key)!r}, as in the checkpoint")

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> Self:
        """Return the model that a state dict belongs to, with its weights (the contract of CompressAI)."""
        config = json.loads(bytes(state_dict[CONFIG].tolist()))
        del config["name"]
        model = cls(**config)
        model.load_state_dict(state_dict)
        return model
