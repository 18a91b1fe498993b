"""How many cores there are for a process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import jointiq
from jointiq.runtime import usable_cores


def test_cores_are_those_the_process_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_one_function_asks_for_them() -> None:
    package = Path(jointiq.__file__).parent
    asking = [path for path in package.rglob("*.py") if "sched_getaffinity" in path.read_text(encoding="utf-8")]
    assert asking == [package / "runtime.py"]
