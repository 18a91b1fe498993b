"""Sweeps and the page's batch script on a real SLURM of one machine, which the tests bring up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from jointiq.runs.status import read_sweep
from tests.sweeps import slurm
from tests.training import tiny

MISSING = slurm.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(MISSING), reason=f"no SLURM on this machine: {', '.join(MISSING)} missing"),
]

TWO_TASKS = ("trainer=ddp_cpu", "trainer.devices=2", "hydra.launcher.cpus_per_task=1")
#: SLURM asks to save when a job has run one to two minutes of its three, so one of two minutes is cut at least once.
SHORT = ("hydra.launcher.timeout_min=3", "hydra.launcher.signal_delay_s=60")
TWO_MINUTES = "trainer.max_time='00:00:02:00'"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment of commands that talk to the cluster."""
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**os.environ, **quiet, **environment}


@pytest.fixture
def job(tmp_path: Path) -> Callable[[int], tuple[str, ...]]:
    """``job(steps)``: what is typed for a tiny training."""
    tiny.write_images(tmp_path)

    def overrides(steps: int) -> tuple[str, ...]:
        return (*tiny.overrides(tmp_path, steps), f"paths.results={tmp_path}", "trainer.val_check_interval=100000")

    return overrides


def start(cluster: Mapping[str, str], *typed: str) -> subprocess.Popen[str]:
    """A sweep by SLURM."""
    words = [sys.executable, "-m", "src.train", "-m", "hydra/launcher=slurm", "hydra.launcher.partition=debug", *typed]
    return subprocess.Popen(
        words, cwd=tiny.ROOT, env=dict(cluster), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def end(process: subprocess.Popen[str], code: int) -> str:
    """What it has printed, once it has ended with ``code``."""
    output = process.communicate(timeout=1000)[0]
    assert process.returncode == code and "Traceback" not in output, output
    return output


def wait_until(true: Callable[[], object], *processes: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 1000
    while not true():
        assert time.monotonic() < limit and all(process.poll() is None for process in processes)
        time.sleep(0.2)


def trained_steps(results: Path) -> list[int]:
    """Logged steps of the only run."""
    (folder,) = (results / "runs" / "jointiq").iterdir()
    return [int(row["step"]) for row in tiny.rows(folder) if "train/loss" in row]


def test_an_array(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """Two jobs of two tasks, and one that fails; typed again, what is finished is not handed over."""
    typed = (*job(2), *TWO_TASKS, "lmbda=0.5,0.06,1.5", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    output = end(start(cluster, *typed), 1)
    assert "3 jobs started" in output and "3 runs: 2 done, 1 failed" in output and "exit code 2" in output
    folders = list((tmp_path / "runs" / "jointiq").glob("[!.]*"))
    assert len(folders) == 2
    for folder in folders:
        assert [row["step"] for row in tiny.rows(folder) if "train/loss" in row] == ["0", "1"]
    logs = list((tmp_path / "sweep" / ".submitit").glob("*_*/*_log.out"))
    assert len(logs) == 6  # two tasks of three jobs
    output = end(start(cluster, *typed), 1)
    assert output.count("finished before, skipped") == 2 and "1 jobs started" in output
    assert "3 runs: 2 done, 1 failed" in output


def test_the_time_limit(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """It saves, is queued again and goes on; typed again while it does, the command waits for that job."""
    typed = (*job(100000), TWO_MINUTES, *SHORT, "lmbda=0.5", "hydra.launcher.cpus_per_task=1")
    process = start(cluster, *typed, f"hydra.sweep.dir={tmp_path / 'sweeps' / 'a'}")
    wait_until(lambda: slurm.ask(cluster, "squeue", "--noheader", "--format=%T") == "RUNNING", process)
    again = start(cluster, *typed, f"hydra.sweep.dir={tmp_path / 'sweeps' / 'b'}")
    output = end(process, 0)
    assert "1 jobs started" in output and "1 run: 1 done" in output
    output = end(again, 0)
    assert re.search(r"\[1/1\] in the queue already: SLURM job \d+\n0 jobs started", output), output
    assert "1 run: 1 done" in output
    (log,) = (tmp_path / "sweeps" / "a" / ".submitit").glob("*/*_log.out")
    text = log.read_text()
    assert "stopped at step" in text and "Requeued job" in text and "continuing after step" in text
    assert "Traceback" not in text
    steps = trained_steps(tmp_path)
    assert steps == list(range(len(steps)))


def test_a_cancelled_job(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """Noticed without accounting; the others go on, and the same command tries it again."""
    record = tmp_path / "sweep"
    typed = (*job(60), "lmbda=0.5,0.06", "hydra.launcher.cpus_per_task=2", f"hydra.sweep.dir={record}")
    process = start(cluster, *typed)
    wait_until(lambda: [one.state for one in read_sweep(record)] == ["running", "waiting"], process)
    name = (record / "jobs" / "0.slurm").read_text().strip()
    slurm.ask(cluster, "scancel", name)
    output = end(process, 1)
    assert f"error: SLURM job {name} has ended without a result (CANCELLED)" in output
    assert "2 runs: 1 done, 1 cut" in output
    output = end(start(cluster, *typed), 0)
    assert "finished before, skipped" in output and "1 jobs started" in output and "2 runs: 2 done" in output
    for folder in (tmp_path / "runs" / "jointiq").glob("[!.]*"):
        assert [int(row["step"]) for row in tiny.rows(folder) if "train/loss" in row] == list(range(60))


def script(folder: Path, overrides: Sequence[str]) -> str:
    """The batch script of the page, for two CPU tasks and three minutes."""
    (text,) = re.findall(r"^#!/bin/bash\n#SBATCH.*?(?=^```)", (tiny.ROOT / "docs/cluster.md").read_text(), re.M | re.S)
    command = f"srun {sys.executable} -m src.train {' '.join(overrides)}"
    for found, instead in (
        (r"--ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=8 --time=\S+",
         f"--ntasks-per-node=2 --cpus-per-task=1 --time=3 --output={folder}/log --chdir={tiny.ROOT}"),
        (r"USR1@300", "USR1@60"),
        (r"^srun python .*$", command),
    ):  # fmt: skip
        text, count = re.subn(found, lambda _, instead=instead: instead, text, flags=re.M)
        assert count == 1, found
    return text


def test_the_batch_script(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """Two tasks; the time is over, they save, the job is queued again and goes on. Given again, nothing is to do."""
    overrides = (*job(100000), "trainer=ddp_cpu", TWO_MINUTES, f"paths.run_dir={tmp_path / 'run'}")
    file = tmp_path / "script"
    file.write_text(script(tmp_path, [f'"{one}"' for one in overrides]))
    for told in ("trained at step", "finished before"):
        number = slurm.ask(cluster, "sbatch", "--parsable", str(file))
        ended = lambda: slurm.ask(cluster, "squeue", "-h", "--states=all", f"--jobs={number}", "-o", "%T")  # noqa: B023, E731
        wait_until(lambda ended=ended: ended() in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"))
        text = (tmp_path / "log").read_text()
        assert ended() == "COMPLETED" and told in text and "Traceback" not in text, text
    assert "stopped at step" in text and "continuing after step" in text
    steps = [int(row["step"]) for row in tiny.rows(tmp_path / "run") if "train/loss" in row]
    assert steps == list(range(len(steps)))
