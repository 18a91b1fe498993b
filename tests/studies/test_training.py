"""The trainings of a study, one process each, and the GPUs that they get."""

from __future__ import annotations

from pathlib import Path

import pytest

from jointiq.studies import training
from jointiq.studies.plan import Run, Scale
from tests.studies.pretended import PretendedJobs


@pytest.mark.parametrize(("trainer", "gpus"), [("auto", ["4", "7"]), ("ddp", ["4,7"]), ("cpu", [])])
def test_trainings_deal_out_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str, gpus: list[str]
) -> None:
    """Those that they may use; with several GPUs a training, in sets."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    jobs = PretendedJobs()
    monkeypatch.setattr(training, "run_jobs", jobs)
    run = Run("one", "one", ("+experiment=lee2019", "scale=demo", "model.N=6", "model.M=8"), (0.5,), (0,))
    scale = Scale("demo", "", (run,), (), "all", (), ())
    made = training.trainings(scale, [f"trainer={trainer}", f"paths.results={tmp_path}"])
    assert training.train(made, 2, tmp_path) == made
    assert jobs.gpus == gpus
