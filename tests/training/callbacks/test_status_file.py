"""The status of a run is that of this run."""

from __future__ import annotations

from pathlib import Path

import pytest

from jointiq.runs.status import read_status
from jointiq.training import run
from jointiq.training.modules.compression import CompressionModule
from tests.training import tiny


def test_a_run_that_starts_anew_shows_nothing_of_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_images(tmp_path)
    folder = tmp_path / "run"
    again = (*tiny.overrides(tmp_path, 1), f"paths.run_dir={folder}", "resume=never")
    run.train(tiny.config(*again))
    assert read_status(folder)["psnr"] is not None

    def cut(*_: object) -> None:
        raise RuntimeError("cut")

    monkeypatch.setattr(CompressionModule, "training_step", cut)
    with pytest.raises(RuntimeError, match="cut"):
        run.train(tiny.config(*again))
    assert read_status(folder)["psnr"] is None
