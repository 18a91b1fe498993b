"""Sweeps as they are typed: every job a process, and what becomes of the others when one fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jointiq.runs.status import RunStatus, read_sweep
from jointiq.sweeps import processes
from jointiq.sweeps import sweep as sweeps
from tests.training import tiny
from tests.training.typed import own, rows, run, start


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


def test_every_job_of_a_sweep_is_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    groups: list[str] = []
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)

    class FakeProcess:
        def __init__(self, command: list[str], env: dict[str, str], stdout: Any, stderr: Any) -> None:
            commands.append(command)
            groups.append(env["WANDB_RUN_GROUP"])

        def poll(self) -> int:
            return 2 if "lmbda=0.5" in commands[-1] else 0

    monkeypatch.setattr(processes.subprocess, "Popen", FakeProcess)
    job = ("+experiment=jointiq", "trainer=cpu", f"paths.results={tmp_path}")
    assert run(monkeypatch, "-m", *job, "lmbda=0.5,0.06") == 1
    assert [command[1:] for command in commands] == [
        ["-m", "src.train", *job, f"lmbda={lmbda}"] for lmbda in ("0.5", "0.06")
    ]
    assert groups[0] == groups[1] == next((tmp_path / "sweeps").iterdir()).name
    output = capsys.readouterr().out
    assert "2 runs: 1 done, 1 failed" in output and re.search(r"lmbda=0\.5 +failed .* exit code 2", output)
    assert run(monkeypatch, "-m", *job, "lmbda=0.06,0.03") == 0


@pytest.fixture
def submitit_local(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[list[str]]], None]], None]:
    """``submitit_local(launch)``: instead of starting jobs, call ``launch`` with the overrides of each."""
    launchers = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.delenv("HYDRA_FULL_ERROR")  # what the sweep sets goes with the test

    def install(launch: Callable[[list[list[str]]], None]) -> None:
        def instead(self: Any, job_overrides: Any, initial_job_idx: int) -> list[Any]:
            launch([list(overrides) for overrides in job_overrides])
            return []

        monkeypatch.setattr(launchers.LocalLauncher, "launch", instead)

    return install


def test_jobs_of_another_launcher_are_waiting_until_they_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], submitit_local: Any
) -> None:
    handed_over: list[list[str]] = []

    def launch(jobs: list[list[str]]) -> None:
        assert [one.state for one in read_sweep(tmp_path)] == ["waiting"] * 4
        assert f"4 jobs; how they stand: python -m src.status {tmp_path}" in capsys.readouterr().out
        handed_over.extend(jobs)

    submitit_local(launch)
    sweep = ("hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path}", f"paths.results={tmp_path / 'r'}")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "7.json").write_text("of another sweep")
    assert run(monkeypatch, "-m", "+experiment=jointiq,lee2019", "seed=range(2)", "data=folder", *sweep) == 1
    noted = [json.loads((tmp_path / "jobs" / f"{number}.json").read_text()) for number in range(4)]
    assert [note["overrides"] for note in noted] == handed_over
    assert [Path(note["folder"]).parent.name for note in noted] == ["jointiq", "jointiq", "lee2019", "lee2019"]
    assert "4 runs: 4 waiting" in capsys.readouterr().out


def test_a_job_that_another_launcher_loses_is_one_line_and_the_others_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], submitit_local: Any
) -> None:
    states = iter(["running", "running", "done"])

    def launch(jobs: list[list[str]]) -> None:
        raise RuntimeError("Job 17 with path P\nhas not produced any output\nand a long story")

    def read(record: Path) -> list[RunStatus]:
        assert record == tmp_path
        return [RunStatus("lost", "waiting"), RunStatus("other", next(states, "done"))]

    monkeypatch.setattr(sweeps, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(sweeps, "read_sweep", read)
    submitit_local(launch)
    sweep = ("hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path}", f"paths.results={tmp_path / 'r'}")
    assert run(monkeypatch, "-m", "+experiment=jointiq", "lmbda=0.5,0.06", *sweep) == 1
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "error: Job 17 with path P has not produced any output; other jobs go on, the same command tries this one again"
    ]
    assert next(states, None) is None and "2 runs: 1 done, 1 waiting" in told.out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_distributed_jobs_of_a_sweep(tmp_path: Path, images: Path) -> None:
    """Four jobs of two processes each: each is trained once, in a folder of its own."""
    options = ("data.batch_size=2", "optim.schedule=constant")
    common = (*own(images)[1:], *options, "trainer.max_steps=2", "trainer=ddp_cpu", f"paths.results={tmp_path}")
    process = start("-m", "+experiment=ablation_no_gc,jointiq", "lmbda=0.5,0.06", *common)
    output = process.communicate(timeout=580)[0]
    assert process.returncode == 0, output
    assert output.count("trained at step 2") == 4 and "4 runs: 4 done" in output
    folders = [folder for name in ("ablation_no_gc", "jointiq") for folder in (tmp_path / "runs" / name).iterdir()]
    assert len(folders) == 4
    for folder in folders:
        assert [int(row["step"]) for row in rows(folder) if row["train/loss"]] == [0, 1]


@pytest.mark.slow
def test_sweep_goes_on_after_a_failed_job(tmp_path: Path, images: Path) -> None:
    process = start("-m", *own(images), "trainer.max_steps=1", "lmbda=1.5,0.5", f"paths.results={tmp_path}")
    output = process.communicate(timeout=110)[0]
    assert process.returncode == 1, output
    assert "2 runs: 1 done, 1 failed" in output and "exit code 2" in output
    (folder,) = (tmp_path / "runs" / "jointiq").iterdir()
    assert folder.name.startswith("lmbda0.5_") and (folder / "checkpoints" / "last.ckpt").is_file()
