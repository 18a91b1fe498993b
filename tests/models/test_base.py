"""What all models share: the registry, checks of latents, and integers that follow the weights."""

from __future__ import annotations

import pytest
import torch

from jointiq.coding.image_codec import to_tensor
from jointiq.errors import ConfigError, DataError
from jointiq.models import build_model, model_classes
from jointiq.models.base import LearnedCodec


def test_only_models_of_this_project_are_built() -> None:
    assert "jointiq" in model_classes()
    assert all(issubclass(cls, LearnedCodec) for cls in model_classes().values())
    for name in ("bmshj2018-factorized", "os", None, 3):
        with pytest.raises(ConfigError, match=r"model\.name"):
            build_model({"name": name})
    with pytest.raises(ConfigError, match="model.width=3 .*the keys of jointiq"):
        build_model({"name": "jointiq", "N": 4, "M": 4, "width": 3})


def test_latents_that_are_not_finite_are_refused(living, picture) -> None:
    model = living()
    with torch.no_grad():
        model.entropy_model.h_a.convs[-1].bias[0] = torch.nan
    with pytest.raises(DataError, match="no finite latents"):
        model.latents(to_tensor(picture(32, 32)))


def test_a_model_forgets_its_integers_when_its_weights_change(living) -> None:
    model = living()
    before = model.integers
    assert model.integers is before and not model.update()
    model.train()
    assert model.eval().integers is not before
    before = model.integers
    model.load_state_dict(model.state_dict())
    assert model.integers is not before
