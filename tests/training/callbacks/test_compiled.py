"""optim.compile: the same training, compiled; validation is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jointiq.errors import ConfigError
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


def test_it_is_no_part_of_what_is_learned() -> None:
    keys = {run_key(tiny.config("+experiment=jointiq", f"optim.compile={value}")) for value in ("false", "true")}
    assert len(keys) == 1


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.compile='fast'"):
        validate(tiny.config("+experiment=jointiq", "optim.compile=fast"))
    validate(tiny.config("+experiment=jointiq", "optim.compile=reduce-overhead"))
