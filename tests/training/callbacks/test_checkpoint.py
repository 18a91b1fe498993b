"""The running mean of the weights, from the training to its checkpoint and on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jointiq.coding.load import load_model
from jointiq.errors import ConfigError
from jointiq.training.callbacks.checkpoint import LastCheckpoint
from jointiq.training.run import train
from tests.training import tiny
from tests.training.tiny import weights
from tests.training.typed import error_line, last, losses, own, rows, run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


def test_the_mean_of_the_weights_is_saved_validated_and_continued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (*own(images), "optim.schedule=constant")
    plain, mean = tmp_path / "plain", tmp_path / "mean"
    train(tiny.config(*common, f"paths.run_dir={plain}"))
    train(tiny.config(*common, "optim.ema_decay=0.75", f"paths.run_dir={mean}"))
    assert losses(plain) == losses(mean)
    assert float(rows(plain)[-1]["val/loss"]) != float(rows(mean)[-1]["val/loss"])

    checkpoint = torch.load(last(mean), weights_only=True)
    assert int(checkpoint["averaging_state"]["n_averaged"]) == 2
    current = {key: value for key, value in checkpoint["current_model_state"].items() if key.startswith("net.")}
    assert all(value.equal(current[key]) for key, value in weights(plain).items())
    net = load_model(last(mean)).state_dict()
    assert all(value.equal(net[key.removeprefix("net.")]) for key, value in checkpoint["state_dict"].items())

    # After one step the mean is the weights; then mean = 3/4 mean + 1/4 weights.
    train(tiny.config(*common, "trainer.max_steps=1", f"paths.run_dir={tmp_path / 'one'}"))
    key = "net.g_a.convs.0.weight"
    expected = 0.75 * weights(tmp_path / "one")[key] + 0.25 * current[key]
    torch.testing.assert_close(checkpoint["state_dict"][key], expected)

    more = ("trainer.max_steps=3", f"paths.run_dir={mean}", f"ckpt_path={last(mean)}")
    train(tiny.config(*common, *more, "optim.ema_decay=0.75"))
    later = torch.load(last(mean), weights_only=True)
    assert int(later["averaging_state"]["n_averaged"]) == 3
    moved = 0.75 * expected + 0.25 * later["current_model_state"][key]
    torch.testing.assert_close(later["state_dict"][key], moved)
    capsys.readouterr()
    assert run(monkeypatch, *common, *more) == 2
    assert "with a mean of the weights" in error_line(capsys)


@pytest.mark.parametrize("key", ["every_steps", "keep"])
def test_checkpoints_are_kept_and_saved_at_least_once(key: str, tmp_path: Path) -> None:
    values = {"every_steps": 1, "keep": 1, key: 0}
    with pytest.raises(ConfigError, match=f"callbacks.checkpoint.{key}=0"):
        LastCheckpoint(str(tmp_path / "last.ckpt"), **values)
