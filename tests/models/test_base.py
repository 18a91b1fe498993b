"""What all models share: the registry, and how several side segments travel as one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jointiq.coding.image_codec import to_tensor
from jointiq.errors import BitstreamError, ConfigError, DataError
from jointiq.models import build_model, model_classes
from jointiq.models.base import LearnedCodec, pack_segments, unpack_segments


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_segments_come_back(segments: list[bytes]) -> None:
    assert unpack_segments(pack_segments(segments), len(segments)) == segments


def test_one_segment_is_itself() -> None:
    assert pack_segments([b"abc"]) == b"abc" and pack_segments([]) == b""


@pytest.mark.parametrize(("data", "count"), [(b"x", 0), (b"\x05ab", 2), (b"", 2), (b"\x80", 3), (b"\x01\x05abc", 3)])
def test_segments_that_do_not_add_up(data: bytes, count: int) -> None:
    with pytest.raises(BitstreamError):
        unpack_segments(data, count)


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
