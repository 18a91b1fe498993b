"""SLURM: what is refused, what is not submitted twice, lost jobs; then all of it on a real one of this one machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from jointiq.errors import ConfigError
from jointiq.runs.job_notes import note_file, note_job
from jointiq.runs.status import read_sweep
from jointiq.sweeps import slurm
from tests.sweeps import slurm_cluster
from tests.training import tiny

MISSING = slurm_cluster.missing()


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that takes a cluster, and minutes."""
    reason = f"no SLURM on this machine: {', '.join(MISSING)} missing"
    return pytest.mark.slow(pytest.mark.timeout(1200)(pytest.mark.skipif(bool(MISSING), reason=reason)(test)))


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """``says(program, text)``: from now on a program of SLURM's prints this."""
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")

    def write(program: str, text: str) -> None:
        file = tmp_path / "programs" / program
        file.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        file.chmod(0o755)

    return write


class Submitit:
    """The launcher's settings."""

    _EXECUTOR = "slurm"

    def __init__(self, **settings: object) -> None:
        self.params = {
            "timeout_min": 1440, "signal_delay_s": 300, "partition": None, "tasks_per_node": 1, "gpus_per_node": None,
            "cpus_per_task": None, **settings,
        }  # fmt: skip


@pytest.mark.parametrize(("minutes", "seconds", "allowed"), [(6, 300, False), (7, 300, True), (2, 60, False)])
def test_a_time_limit_that_leaves_no_time(minutes: int, seconds: int, allowed: bool, says: Any) -> None:
    says("sinfo", "")
    launcher = Submitit(timeout_min=minutes, signal_delay_s=seconds)
    if allowed:
        slurm.check_settings(launcher, tiny.config("scale=demo"))
        return
    with pytest.raises(ConfigError, match=rf"timeout_min={minutes} is not allowed; allowed: from {minutes + 1} up"):
        slurm.check_settings(launcher, tiny.config("scale=demo"))


@pytest.mark.parametrize(
    ("settings", "typed", "cores"),
    [({}, ["threads=3"], 3), ({}, ["threads=9"], 4), ({}, ["threads=null"], 4), ({}, ["data.num_workers=2"], 3),
     ({"tasks_per_node": 2}, ["threads=null"], 2), ({"gpus_per_node": 1}, [], 4),
     ({"gpus_per_node": 1}, ["data.num_workers=1"], 2), ({"cpus_per_task": 4}, [], 4)],
)  # fmt: skip
def test_cores_of_a_task_fit_the_machine(settings: dict[str, Any], typed: list[str], cores: int, says: Any) -> None:
    says("sinfo", "2\n4")
    launcher = Submitit(**settings)
    slurm.check_settings(launcher, tiny.config("scale=demo", *typed))
    assert launcher.params["cpus_per_task"] == cores


def test_more_cores_than_a_machine_has(says: Any) -> None:
    says("sinfo", "2\n4")
    with pytest.raises(ConfigError, match="cpus_per_task=3 is not allowed; allowed: up to 2: .* 4 cores, for 2 tasks"):
        slurm.check_settings(Submitit(cpus_per_task=3, tasks_per_node=2), tiny.config("scale=demo"))


def test_gpus_of_a_job_follow_the_trainer() -> None:
    for typed, gpus in (("trainer=ddp", 2), ("trainer=auto", 1), ("trainer=cpu", None), ("trainer=ddp_cpu", None)):
        cfg = tiny.config("scale=demo", typed)
        assert OmegaConf.create({**cfg, "gpus": "${job_gpus:}"}).gpus == gpus


def test_jobs_in_the_queue_are_known_in_whatever_sweep(tmp_path: Path, says: Any) -> None:
    for sweep, names in (("a", ("7_0", "7_1")), ("b", ("8", "9"))):
        for number, name in enumerate(names):
            note_job(tmp_path / sweep, number, (), tmp_path / f"run{name}", None)
            job = slurm.QueuedJob(name, note_file(tmp_path / sweep, number))
            assert slurm.follow(tmp_path / sweep, number, job) == job
    says("squeue", "7_0|COMPLETED\n7_1|PENDING\n8|RUNNING\n10|RUNNING")
    found = slurm.queued(tmp_path, tmp_path / "b")
    assert {folder: job.name for folder, job in found.items()} == {
        str(tmp_path / "run7_1"): "7_1",
        str(tmp_path / "run8"): "8",
    }
    assert slurm.follow(tmp_path / "c", 5, found[str(tmp_path / "run8")]).note == note_file(tmp_path / "b", 0)
    assert (tmp_path / "c" / "jobs" / "5.slurm").read_text() == "8\n"


def test_a_job_that_is_lost_is_told(
    tmp_path: Path, says: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the queue still shows it or has forgotten it; the others' codes are those that they have noted."""
    for number, code in enumerate((0, 2, None, None)):
        note_job(tmp_path, number, (), None, code)
    says("squeue", "1|COMPLETED\n2|COMPLETED\n3|CANCELLED")
    monkeypatch.setattr(slurm, "_FIRST_PAUSE_SECONDS", 0.01)
    jobs = {number: slurm.QueuedJob(str(number + 1), note_file(tmp_path, number)) for number in range(4)}
    assert slurm.wait_for(jobs) == {0: 0, 1: 2, 2: None, 3: None}
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "error: SLURM job 3 has ended without a result (CANCELLED)",
        "error: SLURM job 4 has ended without a result (no longer in the queue)",
    ]


TWO_TASKS = ("trainer=ddp_cpu", "trainer.devices=2", "hydra.launcher.cpus_per_task=1")
#: SLURM asks to save when a job has run one to two minutes of its three, so one of two minutes is cut at least once.
SHORT = ("hydra.launcher.timeout_min=3", "hydra.launcher.signal_delay_s=60")
TWO_MINUTES = "trainer.max_time='00:00:02:00'"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment of commands that talk to the cluster."""
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")) as environment:
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


@real
def test_an_array(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """Two jobs of two tasks, and one that fails; typed again, what is finished is not handed over."""
    typed = (*job(2), *TWO_TASKS, "model.G=1,2,0", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    output = end(start(cluster, *typed), 1)
    assert "3 jobs started" in output and "3 runs: 2 done, 1 failed" in output and "exit code 2" in output
    folders = list((tmp_path / "runs" / "jointiq").glob("[!.]*"))
    assert len(folders) == 2
    for folder in folders:
        assert [row["step"] for row in tiny.rows(folder) if "train/loss" in row] == ["0", "1"]
    logs = list((tmp_path / "sweep" / ".submitit").glob("*_*/*_log.out"))
    assert len(logs) == 6  # two tasks of three jobs
    output = end(start(cluster, *typed), 1)
    assert output.count("finished before, skipped") == 2 and "1 job started" in output
    assert "3 runs: 2 done, 1 failed" in output


@real
def test_the_time_limit(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """It saves, is queued again and goes on; typed again while it does, the command waits for that job."""
    typed = (*job(100000), TWO_MINUTES, *SHORT, "lmbda=0.5", "hydra.launcher.cpus_per_task=1")
    process = start(cluster, *typed, f"hydra.sweep.dir={tmp_path / 'sweeps' / 'a'}")
    wait_until(lambda: slurm_cluster.ask(cluster, "squeue", "--noheader", "--format=%T") == "RUNNING", process)
    again = start(cluster, *typed, f"hydra.sweep.dir={tmp_path / 'sweeps' / 'b'}")
    output = end(process, 0)
    assert "1 job started" in output and "1 run: 1 done" in output
    output = end(again, 0)
    assert re.search(r"\[1/1\] in the queue already: SLURM job \d+\n0 jobs started", output), output
    assert "1 run: 1 done" in output
    (log,) = (tmp_path / "sweeps" / "a" / ".submitit").glob("*/*_log.out")
    text = log.read_text()
    assert "stopped at step" in text and "Requeued job" in text and "continuing after step" in text
    assert "Traceback" not in text
    steps = trained_steps(tmp_path)
    assert steps == list(range(len(steps)))


@real
def test_a_cancelled_job(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """Noticed without accounting; the others go on, and the same command tries it again."""
    record = tmp_path / "sweep"
    typed = (*job(600), "lmbda=0.5,0.06", "hydra.launcher.cpus_per_task=2", f"hydra.sweep.dir={record}")
    process = start(cluster, *typed)
    wait_until(lambda: [one.state for one in read_sweep(record)] == ["running", "waiting"], process)
    name = (record / "jobs" / "0.slurm").read_text().strip()
    slurm_cluster.ask(cluster, "scancel", name)
    output = end(process, 1)
    assert f"error: SLURM job {name} has ended without a result (CANCELLED)" in output
    assert "2 runs: 1 done, 1 cut" in output
    output = end(start(cluster, *typed), 0)
    assert "finished before, skipped" in output and "1 job started" in output and "2 runs: 2 done" in output
    for folder in (tmp_path / "runs" / "jointiq").glob("[!.]*"):
        assert [int(row["step"]) for row in tiny.rows(folder) if "train/loss" in row] == list(range(600))


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


@real
def test_the_batch_script(cluster: Mapping[str, str], job: Callable[[int], tuple[str, ...]], tmp_path: Path) -> None:
    """Two tasks; the time is over, they save, the job is queued again and goes on. Given again, nothing is to do."""
    overrides = (*job(100000), "trainer=ddp_cpu", TWO_MINUTES, f"paths.run_dir={tmp_path / 'run'}")
    file = tmp_path / "script"
    file.write_text(script(tmp_path, [f'"{one}"' for one in overrides]))
    for told in ("trained at step", "finished before"):
        number = slurm_cluster.ask(cluster, "sbatch", "--parsable", str(file))
        ended = lambda: slurm_cluster.ask(cluster, "squeue", "-h", "--states=all", f"--jobs={number}", "-o", "%T")  # noqa: B023, E731
        wait_until(lambda ended=ended: ended() in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"))
        text = (tmp_path / "log").read_text()
        assert ended() == "COMPLETED" and told in text and "Traceback" not in text, text
    assert "stopped at step" in text and "continuing after step" in text
    steps = [int(row["step"]) for row in tiny.rows(tmp_path / "run") if "train/loss" in row]
    assert steps == list(range(len(steps)))
