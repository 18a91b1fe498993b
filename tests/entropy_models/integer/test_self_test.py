"""A device that does not calculate as the CPU does is refused before a file is coded on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from jointiq.entropy_models.integer.self_test import _sample, require_exact
from jointiq.errors import UserError
from jointiq.layers.integer_layers import IntegerLinear
from tests.pretended_gpu import GPU, pretended_gpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    require_exact.cache_clear()
    yield
    require_exact.cache_clear()


def test_an_exact_device() -> None:
    require_exact(torch.device("cpu"))
    with pretended_gpu(), torch.no_grad():
        require_exact(GPU)


def test_a_device_that_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    finish: Callable[[IntegerLinear, Tensor], Tensor] = IntegerLinear.finish_
    monkeypatch.setattr(
        IntegerLinear, "finish_", lambda layer, a: finish(layer, a.float().double() if a.device == GPU else a)
    )
    with pretended_gpu(), torch.no_grad(), pytest.raises(UserError, match="cuda:0 does not calculate exactly"):
        require_exact(GPU)


def test_a_device_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(layer: Any, a: Tensor) -> Tensor:
        raise TypeError("no float64\nhere")

    monkeypatch.setattr(IntegerLinear, "finish_", refuse)
    with pretended_gpu(), torch.no_grad(), pytest.raises(UserError, match="cannot code: no float64 here"):
        require_exact(GPU)


def test_the_samples_are_not_trivial() -> None:
    assert all(len(result.unique()) > 5 for result in _sample(torch.device("cpu")))
