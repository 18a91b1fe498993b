"""optim.compile: the same training, compiled; validation is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jointiq.errors import ConfigError
from jointiq.models import build_model
from jointiq.runs.name import run_key
from jointiq.training import assemble
from jointiq.training.callbacks import compiled
from jointiq.training.run import train
from jointiq.training.validation import validate
from tests.training import tiny


@pytest.mark.slow
def test_a_compiled_training_gives_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_images(tmp_path / "images")
    calls: list[tuple[bool, bool]] = []

    class Watched(compiled.Compile):
        # This backend traces as the real one does, but generates no code: seconds instead of minutes.
        def __init__(self, mode: bool | str) -> None:
            super().__init__(mode, backend="aot_eager")

        def on_validation_start(self, trainer, pl_module):  # type: ignore[no-untyped-def]
            super().on_validation_start(trainer, pl_module)
            calls.append((vars(pl_module.net).keys() >= {"compression", "enhance"}, pl_module.training))

    monkeypatch.setattr(assemble, "Compile", Watched)
    common = tiny.overrides(tmp_path / "images", steps=2)
    for compile_it in ("false", "true"):
        folder = tmp_path / compile_it
        train(tiny.config(*common, f"optim.compile={compile_it}", f"paths.run_dir={folder}"))
    plain, made = (tiny.weights(tmp_path / name) for name in ("false", "true"))
    assert plain.keys() == made.keys()
    for name, value in plain.items():
        if value.is_floating_point():
            assert torch.allclose(value, made[name], atol=1e-4), name
    assert calls and all(is_compiled for is_compiled, _ in calls)


@pytest.mark.slow
def test_a_step_of_the_network_is_one_graph() -> None:
    """So that CUDA graphs can record it (``optim.compile=reduce-overhead``)."""
    torch.manual_seed(0)
    net = build_model({"name": "jointiq", "N": 4, "M": 4, "scan": "wavefront"}).train()
    x = torch.rand(1, 3, 128, 128)
    rates, gradients = [], []
    for step in (net.compression, torch.compile(net.compression, backend="eager", fullgraph=True, dynamic=False)):
        net.zero_grad()
        torch.manual_seed(1)
        rates.append(step(x)["log_likelihoods"]["y"])
        rates[-1].sum().backward()
        gradients.append(net.entropy_model.global_context.psi.grad)
    torch.testing.assert_close(rates[1], rates[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert gradients[0].abs().sum() > 0


def test_it_is_no_part_of_what_is_learned() -> None:
    keys = {run_key(tiny.config("+experiment=jointiq", f"optim.compile={value}")) for value in ("false", "true")}
    assert len(keys) == 1


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.compile='fast'"):
        validate(tiny.config("+experiment=jointiq", "optim.compile=fast"))
    validate(tiny.config("+experiment=jointiq", "optim.compile=reduce-overhead"))
