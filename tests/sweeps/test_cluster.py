"""Sweeps by other launchers: submitit on this machine, SLURM down to its scripts and to tasks like its own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from jointiq.training.callbacks.stop import StopOnSignal, queued_again
from jointiq.training.validation import refuse_long_trial, validate
from tests.training import tiny

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def start(*overrides: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *overrides], cwd=tiny.ROOT, env={**ENVIRONMENT, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


PAGE = (tiny.ROOT / "docs/cluster.md").read_text()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    tiny.write_images(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_submitit_on_this_machine(images: Path, tmp_path: Path) -> None:
    """Distributed jobs too; a failed job stops no other; typed again, the sweep skips what is finished."""
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    command = (
        "-m", *tiny.overrides(images, 2), "trainer=ddp_cpu", "hydra/launcher=submitit_local", "model.G=3,0",
        f"paths.results={tmp_path}", sweep,
    )  # fmt: skip
    process = start(*command)
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 1 and "2 runs: 1 done, 1 failed" in output, output
    (folder,) = (tmp_path / "runs" / "jointiq").iterdir()
    assert [row["step"] for row in tiny.rows(folder) if "train/loss" in row] == ["0", "1"]
    before = (folder / "checkpoints" / "last.ckpt").stat().st_mtime
    assert start(*command).wait(timeout=280) == 1
    assert (folder / "checkpoints" / "last.ckpt").stat().st_mtime == before


#: What the page's table of settings says is typed.
SETTINGS = [
    word
    for line in re.findall(r"^\| .* \| `(.*hydra\.launcher.*)` \|$", PAGE, re.MULTILINE)
    for word in shlex.split(line)
]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_script_for_slurm(images: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, line in (("sbatch", f'cp "$1" {tmp_path}/script; echo Submitted batch job 17'), ("sacct", "true")):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    (programs / "srun").symlink_to(programs / "sacct")
    process = start(
        "-m", *tiny.overrides(images), "trainer=ddp", "trainer.devices=4", "data.batch_size=8", "lmbda=0.5,0.06",
        "hydra/launcher=slurm", "hydra.launcher.partition=gpus", "+hydra.launcher.additional_parameters.reservation=me",
        *SETTINGS, f"paths.results={tmp_path}", f"hydra.sweep.dir={tmp_path / 'sweep'}",
        PATH=f"{programs}:{os.environ['PATH']}",
    )  # fmt: skip
    script = tmp_path / "script"
    limit = time.monotonic() + 200
    while not script.is_file() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.2)
    process.kill()
    output = process.communicate()[0]
    assert script.is_file(), output
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script.read_text(), re.MULTILINE))
    expected = {
        "account": "NAME", "qos": "NAME", "mem": "64GB", "mail-type": "END,FAIL",
        "array": "0-1%2", "nodes": "1", "ntasks-per-node": "4", "gpus-per-node": "4", "cpus-per-task": "8",
        "time": "1440", "signal": "USR2@300", "partition": "gpus", "job-name": "jointiq", "reservation": "me",
    }  # fmt: skip
    assert {key: options.get(key) for key in expected} == expected
    assert "requeue" not in options or options["requeue"] == ""
    assert "\nmodule load cuda\n" in script.read_text()
    assert "srun" in script.read_text() and "submitit.core._submit" in script.read_text()


COMMANDS = re.findall(r"python -m src\.train (.*?)(?: [>&].*)?$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_commands_are_allowed(command: str) -> None:
    words = [word for word in shlex.split(command) if "hydra" not in word and word != "-m"]
    cfg = tiny.config(*(word.partition(",")[0] for word in words))
    validate(cfg)
    refuse_long_trial(cfg)


def test_commands_are_documented() -> None:
    assert len(COMMANDS) >= 8


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tasks_of_slurm_start_no_processes_of_their_own(images: Path, tmp_path: Path) -> None:
    """Two processes with the variables that srun gives to two tasks; the time runs out, and the job is queued again."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    (programs / "scontrol").chmod(0o755)
    folder = tmp_path / "run"
    command = (*tiny.overrides(images, 100), "trainer=ddp_cpu", f"paths.run_dir={folder}")

    def run(interrupt: bool, **more: str) -> list[str]:
        port = free_port()
        tasks = [
            start(
                *command, SLURM_JOB_ID="17", SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2", SLURM_PROCID=str(task),
                SLURM_LOCALID=str(task), SLURM_NODEID="0", SLURM_NNODES="1", SLURM_NODELIST="127.0.0.1",
                SLURM_JOB_NAME="jointiq", MASTER_PORT=port, MASTER_ADDR="127.0.0.1",
                PATH=f"{programs}:{os.environ['PATH']}", **more,
            )
            for task in (0, 1)
        ]  # fmt: skip
        last = folder / "checkpoints" / "last.ckpt"
        while interrupt and not last.is_file() and all(task.poll() is None for task in tasks):
            time.sleep(0.1)
        for task in tasks if interrupt else ():
            task.send_signal(signal.SIGUSR1)
        outputs = [task.communicate(timeout=250)[0] for task in tasks]
        assert [task.returncode for task in tasks] == [143 if interrupt else 0, 0], outputs
        return outputs

    outputs = run(interrupt=True)
    assert "stopped at step" in outputs[0] and "stopped at step" not in outputs[1]
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    outputs = run(interrupt=False, SLURM_RESTART_COUNT="1")
    assert "continuing after step" in outputs[0] and "trained at step 100" in outputs[0]
    assert [int(row["step"]) for row in tiny.rows(folder) if "train/loss" in row] == list(range(100))
    assert not folder.with_name("run.old1").exists()


def test_whoever_listens_to_a_clusters_signal_is_told_after_the_state_is_saved() -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: told.append(number))
    try:
        stop = StopOnSignal()
        stop.on_train_start(None, None)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.stopped and told == []
        stop.teardown(None, None, "fit")  # type: ignore[arg-type]
        with pytest.raises(SystemExit) as exit_info:
            stop.leave(first_process=True)
        assert told == [signal.SIGUSR2] and exit_info.value.code == 143
        stop.leave(first_process=False)
        assert len(told) == 2
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_job_that_is_not_training_is_queued_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it starts or measures; the first process asks, for all."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "17",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NAME": "x",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as second, queued_again():
        second.setattr(rank_zero_only, "rank", 1)
        os.kill(os.getpid(), signal.SIGUSR1)
    assert not (tmp_path / "asked").exists()
    with pytest.raises(SystemExit) as exit_info, queued_again():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(1)
    assert exit_info.value.code == 143 and (tmp_path / "asked").read_text() == "requeue 17\n"
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    monkeypatch.delenv("SLURM_NTASKS")
    with queued_again():
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
