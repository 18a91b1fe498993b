"""Pictures for W&B: of the right size and content, one for each latent's bits, when they are due."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from jointiq.errors import ConfigError
from jointiq.tracking.pictures import ImagePanels, is_due, panels

MODULE: Any = SimpleNamespace(net=SimpleNamespace(PADS_BOTH_SIDES=False))


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
    words = [caption.split(",")[0] for caption in pictures]
    assert words == ["original", "I", "Q", "error of Q", "bits of y", "bits of z"]
    original, mid, final, error, bits, none = pictures.values()
    assert all(picture.shape == (70, 90, 3) and picture.dtype == np.uint8 for picture in pictures.values())
    assert (original == 100).all() and (mid == 0).all() and (final == 104).all() and (error == 32).all()
    assert (bits[:16, 80:] == 255).all() and bits.sum() == 255 * 16 * 10 * 3
    assert none.sum() == 0
    captions = " ".join(pictures)
    assert "Q, 36.09 dB" in captions and "bits of y, 0.005 bpp; white = 34.6 a position" in captions


@pytest.mark.parametrize(
    ("side", "latents"),
    [((70, 90), {"y": 16}), ((70, 90), {"y": 16, "h1": 64, "h2": 32}), ((1, 9), {"y": 16, "z": 64})],
)
def test_every_latent_has_a_map_in_the_place_of_its_bits(side: tuple[int, int], latents: dict[str, int]) -> None:
    x = torch.rand(1, 3, *side)
    costs = {name: torch.zeros(1, 2, -(-side[0] // step), -(-side[1] // step)) for name, step in latents.items()}
    for cost in costs.values():
        cost[..., -1, -1] = -1.0  # all bits at the bottom right
    shown = panels(x, {"x_hat": x, "x_mid": x, "log_likelihoods": costs}, side=384)
    maps = {caption.split(",")[0].removeprefix("bits of "): picture for caption, picture in list(shown.items())[4:]}
    assert list(maps) == list(latents)
    for name, step in latents.items():
        bright = maps[name][..., 0] == 255
        top, left = (step * ((length - 1) // step) for length in side)
        assert bright[top:, left:].all() and bright.sum() == (side[0] - top) * (side[1] - left)


def test_maps_of_images_padded_on_both_sides_are_in_place() -> None:
    x = torch.rand(1, 3, 72, 64)  # padded to 128 rows, 28 of them above
    costs = torch.zeros(1, 1, 8, 4)
    costs[..., 2, :] = -1.0  # rows 32 to 47 of the padded image
    output = {"x_hat": x, "x_mid": x, "log_likelihoods": {"y": costs}}
    *_, bits = panels(x, output, side=384, centred=True).values()
    rows = (bits[..., 0] == 255).all(1).nonzero()[0]
    assert rows.tolist() == list(range(4, 20))


def test_large_pictures_are_scaled_down() -> None:
    x = torch.rand(1, 3, 200, 300)
    assert {picture.shape for picture in panels(x, output(x), side=96).values()} == {(64, 96, 3)}


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def log_image(self, key: str, images: list[Any], step: int, caption: list[str]) -> None:
        assert len(images) == len(caption)
        self.seen.append((key, step, len(images)))


def trainer_at(step: int, recorder: Recorder, **more: Any) -> Any:
    """A trainer of 70 steps with a validation at every tenth."""
    values: dict[str, Any] = {
        "global_step": step,
        "max_steps": 70,
        "val_check_interval": 10,
        "should_stop": False,
        "interrupted": False,
        "is_global_zero": True,
        "loggers": [recorder, SimpleNamespace()],
        "state": SimpleNamespace(fn=TrainerFn.FITTING),
    }
    return SimpleNamespace(**{**values, **more})


def test_the_last_validation_and_those_of_a_continued_run_are_due_as_in_an_unbroken_one() -> None:
    recorder = Recorder()
    assert is_due(trainer_at(40, recorder), 3) and not is_due(trainer_at(50, recorder), 3)
    assert is_due(trainer_at(53, recorder, should_stop=True), 3)  # a time cap
    assert not is_due(trainer_at(40, recorder, should_stop=True, interrupted=True), 3)  # a stop has cut it


def test_pictures_are_logged_when_due() -> None:
    recorder, callback = Recorder(), ImagePanels(images=2, side=32, every=3)
    x = torch.rand(1, 3, 48, 48)
    for step in range(10, 80, 10):
        for index in range(3):
            callback.on_validation_batch_end(trainer_at(step, recorder), MODULE, output(x), x, index)
    expected = [(f"val/image_{index}", step - 1, 6) for step in (10, 40, 70) for index in (0, 1)]
    assert recorder.seen == expected


def test_other_processes_log_nothing() -> None:
    recorder = Recorder()
    x = torch.rand(1, 3, 48, 48)
    ImagePanels().on_validation_batch_end(trainer_at(10, recorder, is_global_zero=False), MODULE, output(x), x, 0)
    assert recorder.seen == []


@pytest.mark.parametrize("options", [{"images": -1}, {"side": 8}, {"every": 0}])
def test_wrong_values_are_named(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"callbacks.panels.{next(iter(options))}"):
        ImagePanels(**options)
