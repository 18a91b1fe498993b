"""What is refused before a training begins."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from jointiq.errors import ConfigError
from jointiq.training.validation import refuse_long_trial, validate
from tests.training import tiny
from tests.training.typed import error_line, run


def test_nobody_trains_for_days_on_the_sample_by_accident(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = f"paths.results={tmp_path / 'r'}"
    for command in ((), ("+experiment=jointiq_full",)):
        assert run(monkeypatch, *command, "scale=paper", "data=sample", results) == 2
        assert "scale=demo" in (line := error_line(capsys)) and "data.at_paper_scale=true" in line
    assert not (tmp_path / "r").exists()
    for asked in ("data.at_paper_scale=true", "trainer.max_steps=100", "trainer.max_time=00:00:10:00"):
        refuse_long_trial(tiny.config("+experiment=jointiq", "scale=paper", asked))


def test_a_metric_that_no_validation_logs_is_refused_before_the_training() -> None:
    for metric in ("train/loss", "psnr"):
        with pytest.raises(ConfigError, match=f"optimized_metric='{metric}'"):
            validate(tiny.config("+experiment=jointiq", "scale=demo", f"optimized_metric={metric}"))
    validate(tiny.config("+experiment=jointiq", "scale=demo", "optimized_metric=val/psnr"))


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name.startswith("tensorboard") else found(name, *rest)
    )
    assert run(monkeypatch, "logger=tensorboard", f"paths.results={tmp_path / 'r'}") == 2
    assert "pip install tensorboard" in error_line(capsys)
