"""Pictures of the global context's weights: what they show, and when they are logged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from jointiq.bitstream.scan import get_scan
from jointiq.errors import ConfigError
from jointiq.layers.block_context import BlockContext
from jointiq.layers.global_context import GlobalContext
from jointiq.tracking.pictures import PsiMaps, psi_pictures


def module(channels: int = 5) -> GlobalContext:
    return GlobalContext(channels, K=2, min_known=2, scan=get_scan("raster"))


def test_a_picture_shows_where_the_weight_is() -> None:
    one = module()
    with torch.no_grad():
        one.psi[2, 1, 0] = 50.0  # one row above, two and more to the left
    pictures = psi_pictures(one, 3)
    assert [caption.split(":")[0] for caption in pictures] == ["channel 0", "channel 2", "channel 4"]
    even, sharp, _ = pictures.values()
    assert even.shape == sharp.shape == (3 * 16, 5 * 16, 3) and even.dtype == np.uint8
    # Known of 3 rows of 5 in raster order: two rows, and two positions to the left. The rest is white.
    known = (even[::16, ::16] != 255).any(-1)
    assert known.tolist() == [[True] * 5, [True] * 5, [True, True, False, False, False]]
    assert len(np.unique(even[::16, ::16][known], axis=0)) == 1
    brightness = np.where(known, sharp[::16, ::16].sum(-1), 0)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (1, 0)
    captions = list(pictures)
    assert "12.0 of 12 positions" in captions[0] and "1.0 of 12 positions, largest weight 1.000" in captions[1]


def test_in_quarters_a_picture_shows_the_blocks_around() -> None:
    one = BlockContext(3, K=2, min_known=2)
    with torch.no_grad():
        one.psi[1, 5] = 50.0  # the block to the right, of 3 x 3
        one.psi[2, 9] = 50.0  # all blocks beyond: not in the picture
    pictures = psi_pictures(one, 3)
    even, sharp, beyond = pictures.values()
    assert even.shape == (3 * 16, 3 * 16, 3) and np.array_equal(even, beyond)
    assert np.unravel_index(sharp[::16, ::16].sum(-1).argmax(), (3, 3)) == (1, 2)
    captions = list(pictures)
    assert "9.0 of 9 blocks" in captions[0] and "1.0 of 9 blocks, largest weight 1.000" in captions[1]


def test_no_more_channels_than_there_are() -> None:
    assert len(psi_pictures(module(2), 8)) == 2


class Recorder:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def log_image(self, key: str, images: list[Any], step: int, caption: list[str]) -> None:
        assert key == "psi" and len(images) == len(caption) == 2
        self.steps.append(step)


def validate(callback: PsiMaps, net: Any, recorder: Recorder, step: int, fn: TrainerFn = TrainerFn.FITTING) -> None:
    trainer: Any = SimpleNamespace(
        global_step=step,
        max_steps=70,
        val_check_interval=10,
        should_stop=False,
        interrupted=False,
        is_global_zero=True,
        loggers=[recorder],
        state=SimpleNamespace(fn=fn),
    )
    callback.on_validation_end(trainer, SimpleNamespace(net=net))  # type: ignore[arg-type]


def test_pictures_are_logged_when_due() -> None:
    recorder, callback = Recorder(), PsiMaps(channels=2, every=3)
    net = SimpleNamespace(entropy_model=SimpleNamespace(global_context=module()))
    for step in (10, 20, 30, 40, 50):
        validate(callback, net, recorder, step)
    validate(callback, net, recorder, 55, TrainerFn.VALIDATING)  # a time cap has ended the training
    validate(callback, net, recorder, 70)
    assert recorder.steps == [9, 39, 54, 69]


@pytest.mark.parametrize("entropy_model", [SimpleNamespace(global_context=None), SimpleNamespace(), None])
def test_models_without_global_context_have_none(entropy_model: Any) -> None:
    recorder = Recorder()
    validate(PsiMaps(), SimpleNamespace(entropy_model=entropy_model), recorder, 10)
    assert recorder.steps == []


@pytest.mark.parametrize("options", [{"channels": -1}, {"every": 0}])
def test_wrong_values_are_named(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"callbacks.psi.{next(iter(options))}"):
        PsiMaps(**options)
