"""The queue of runs: how many at a time, on which GPU, what is skipped, what failures and signals do to the others."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from jointiq.errors import ConfigError
from jointiq.runs import folder as run_folder
from jointiq.runs.status import read_sweep
from jointiq.sweeps import jobs, sweep
from jointiq.sweeps.jobs import Job, run_jobs
from tests.training import tiny


def job(name: str, folder: Path | None = None) -> Job:
    return Job((name,), OmegaConf.create({"ckpt_path": None}), folder)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Instead of trainings, jobs run their override as a line of Python; gives the environment of each."""
    environments: list[dict[str, str]] = []

    def start(overrides: Sequence[str], folders: Any, environment: dict[str, str], output: Any) -> Any:
        environments.append(environment)
        return subprocess.Popen([sys.executable, "-S", "-c", overrides[0]], env=environment, stdout=output)

    monkeypatch.setattr(jobs, "start_process", start)
    return environments


def test_a_failure_stops_no_other(scripts: list[dict[str, str]], tmp_path: Path) -> None:
    results = run_jobs(
        [job("pass"), job("import os; os._exit(2)"), job("print(7)"), job("import os; os.abort()")], record=tmp_path
    )
    assert [result.code for result in results] == [0, 2, 0, 128 + signal.SIGABRT]
    assert [result.failed for result in results] == [False, True, False, True]
    assert [json.loads((tmp_path / "jobs" / f"{n}.json").read_text())["code"] for n in range(4)] == [0, 2, 0, 134]
    assert [run.state for run in read_sweep(tmp_path)] == ["done", "failed", "done", "failed"]


def test_several_at_a_time_on_their_gpus(scripts: list[dict[str, str]], tmp_path: Path) -> None:
    waits = "import os, time; time.sleep(0.5); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    since = time.monotonic()
    results = run_jobs([job(waits)] * 4, at_once=4, gpus=["0,1", "2,3"], record=tmp_path)
    assert time.monotonic() - since < 1.9  # one after the other takes 2.0
    assert all(result.code == 0 for result in results)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in scripts] == ["0,1", "2,3", "0,1", "2,3"]
    assert sorted(path.read_text() for path in (tmp_path / "jobs").glob("*.log")) == ["0,1\n"] * 2 + ["2,3\n"] * 2


def test_jobs_share_the_cores(scripts: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(jobs.os, "sched_getaffinity", lambda process: range(6))
    run_jobs([job("pass")], at_once=3)
    run_jobs([job("pass")])
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run_jobs([job("pass")], at_once=3)
    assert [environment.get("OMP_NUM_THREADS") for environment in scripts] == ["2", None, "5"]


def test_finished_runs_are_skipped(scripts: list[dict[str, str]], tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    texts = (*tiny.overrides(tmp_path), f"paths.results={tmp_path}", "lmbda=0.1")
    done = Job.of(texts)
    assert done.folder is not None and done.folder.parent == tmp_path / "runs" / "jointiq" and not done.is_finished()
    run_folder.describe(done.folder, done.cfg)
    assert not done.is_finished()
    run_folder.mark_done(done.folder, 6)
    assert done.is_finished()
    assert not Job.of((*texts, "resume=never")).is_finished() and not Job.of((*texts, "seed=1")).is_finished()
    (result,) = run_jobs([done])
    assert result.skipped and result.code == 0 and scripts == []


def test_a_job_with_a_wrong_configuration_has_no_folder() -> None:
    assert Job.of(("+experiment=jointiq", "scale=paper", "lmbda=0.4")).folder is None


def test_sigterm_reaches_the_jobs_and_starts_no_more(scripts: list[dict[str, str]], tmp_path: Path) -> None:
    saves = (
        "import signal, sys, time, os; signal.signal(15, lambda *_: sys.exit(143)); "
        "os.kill(os.getppid(), 15); time.sleep(20)"
    )
    results = run_jobs([job("pass"), job(saves), job("pass")], record=tmp_path)
    assert [result.code for result in results] == [0, 143, None]
    assert not any(result.failed for result in results)


def test_sigterm_reaches_a_job_that_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: Any) -> Any:
        started.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(20)"]))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr(jobs, "start_process", start)
    assert [result.code for result in run_jobs([job("first"), job("second")])] == [143, None]
    assert len(started) == 1


@pytest.mark.parametrize(
    ("settings", "visible", "expected"),
    [
        ((), "", (4, [])),
        (("threads=2",), "", (2, [])),
        (("threads=8",), "", (1, [])),
        (("threads=null",), "", (1, [])),
        (("scale=paper",), "", (1, [])),
        (("trainer=ddp_cpu", "trainer.devices=2"), "", (2, [])),
        (("sweep.jobs=3",), "", (3, [])),
        (("trainer=auto",), "0,1,2", (3, ["0", "1", "2"])),
        (("trainer=auto", "sweep.per_gpu=2"), "4,7", (4, ["4", "7"])),
        (("trainer=auto", "sweep.jobs=1"), "4,7", (1, ["4", "7"])),
        (("trainer=ddp", "trainer.devices=2"), "0,1,2,3", (2, ["0,1", "2,3"])),
        (("trainer=cpu",), "0,1", (4, [])),
    ],
)
def test_places(
    settings: tuple[str, ...], visible: str, expected: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    assert sweep.places(tiny.config("scale=demo", *settings), {"CUDA_VISIBLE_DEVICES": visible}) == expected


@pytest.mark.parametrize("wrong", ["sweep.jobs=0", "sweep.per_gpu=0", "sweep.jobs=many", "trainer.devices=3"])
def test_wrong_places(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.split("=")[0]):
        sweep.places(tiny.config("scale=demo", "trainer=gpu", wrong), {"CUDA_VISIBLE_DEVICES": "0,1"})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """One of its jobs fails; the others are skipped, continued or started, and end as in an unbroken sweep."""
    tiny.write_images(tmp_path)
    pace = ("callbacks.checkpoint.every_steps=5", "trainer.val_check_interval=15")
    common = ("-m", *tiny.overrides(tmp_path, 100), *pace, "lmbda=0.5,1.5,0.06")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def start(results: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-m", "src.train", *common, f"paths.results={tmp_path / results}"]
        return subprocess.Popen(command, cwd=tiny.ROOT, env=environment)

    def saved() -> float:
        return max((path.stat().st_mtime for path in tmp_path.glob("part/runs/*/*/checkpoints/last.ckpt")), default=0.0)

    assert start("whole").wait() == 1
    rng = random.Random(1)
    kills = 0
    for _ in range(10):
        process, before = start("part"), saved()
        while process.poll() is None and saved() == before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 5
    assert start("part").wait() == 1
    runs = [sorted((tmp_path / results / "runs" / "jointiq").iterdir()) for results in ("whole", "part")]
    assert [run.name for run in runs[0]] == [run.name for run in runs[1]] and len(runs[0]) == 2
    for whole, part in zip(*runs, strict=True):
        assert tiny.rows(whole) == tiny.rows(part)
