"""Pictures for W&B: five of them, of the right size and content, when they are due."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from src.errors import ConfigError
from src.training.panels import ImagePanels, panels


def output(x: torch.Tensor) -> dict[str, Any]:
    height, width = x.shape[-2:]
    y = torch.zeros(1, 3, -(-height // 16), -(-width // 16))
    y[0, :, 0, -1] = -8.0  # all bits at the top right
    return {
        "x_hat": x + 4 / 255,
        "x_mid": x - 2.0,
        "log_likelihoods": {"y": y, "z": torch.zeros(1, 2, 2, 2)},
    }


def test_pictures_show_what_they_say() -> None:
    x = torch.full((1, 3, 70, 90), 100 / 255)
    pictures = panels(x, output(x), side=384)
    assert [caption.split()[0].rstrip(",") for caption in pictures] == ["original", "I", "Q", "error", "bits"]
    original, mid, final, error, bits = pictures.values()
    assert all(picture.shape == (70, 90, 3) and picture.dtype == np.uint8 for picture in pictures.values())
    assert (original == 100).all() and (mid == 0).all() and (final == 104).all() and (error == 32).all()
    assert (bits[:16, 80:] == 255).all() and bits.sum() == 255 * 16 * 10 * 3
    captions = " ".join(pictures)
    assert "Q, 36.09 dB" in captions and "white = 35 a position" in captions and "0.005 bpp" in captions


def test_large_pictures_are_scaled_down() -> None:
    x = torch.rand(1, 3, 200, 300)
    assert {picture.shape for picture in panels(x, output(x), side=96).values()} == {(64, 96, 3)}


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def log_image(self, key: str, images: list[Any], step: int, caption: list[str]) -> None:
        assert len(images) == len(caption)
        self.seen.append((key, step, len(images)))


def test_pictures_are_logged_when_due() -> None:
    recorder, callback = Recorder(), ImagePanels(images=2, side=32, every=3)
    x = torch.rand(1, 3, 48, 48)
    for step in range(10, 80, 10):
        trainer: Any = SimpleNamespace(
            global_step=step, max_steps=70, is_global_zero=True, loggers=[recorder, SimpleNamespace()]
        )
        for index in range(3):
            callback.on_validation_batch_end(trainer, None, output(x), x, index)  # type: ignore[arg-type]
        callback.on_validation_epoch_end(trainer, None)  # type: ignore[arg-type]
    expected = [(f"val/image_{index}", step - 1, 5) for step in (10, 40, 70) for index in (0, 1)]
    assert recorder.seen == expected


def test_other_processes_log_nothing() -> None:
    recorder = Recorder()
    trainer: Any = SimpleNamespace(global_step=1, max_steps=1, is_global_zero=False, loggers=[recorder])
    x = torch.rand(1, 3, 48, 48)
    ImagePanels().on_validation_batch_end(trainer, None, output(x), x, 0)  # type: ignore[arg-type]
    assert recorder.seen == []


@pytest.mark.parametrize("options", [{"images": -1}, {"side": 8}, {"every": 0}])
def test_wrong_values_are_named(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"callbacks.panels.{next(iter(options))}"):
        ImagePanels(**options)
