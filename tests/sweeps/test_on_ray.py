"""Sweeps on a real Ray: a cluster of its own, and one that was started in another folder, with pretended GPUs."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jointiq.errors import ConfigError
from jointiq.sweeps import on_ray
from jointiq.sweeps.jobs import Job
from tests.training import tiny

pytestmark = pytest.mark.timeout(900)
#: Instead of a training, a job runs its override as a line of Python.
PYTHON = (sys.executable, "-S", "-c")
SETTINGS = {"PYTHONWARNINGS": "ignore", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}


def job(line: str, accelerator: str = "auto", devices: int = 1) -> Job:
    trainer = {"accelerator": accelerator, "devices": devices}
    cfg = {"ckpt_path": None, "threads": 1, "trainer": trainer, "data": {"num_workers": None}}
    return Job((line,), OmegaConf.create(cfg), None)


MACHINES = [
    {"Alive": True, "Resources": {"CPU": 6.0, "GPU": 2.0}},
    {"Alive": True, "Resources": {"CPU": 64.0}},
    {"Alive": False, "Resources": {"CPU": 128.0, "GPU": 8.0}},
]


@pytest.mark.parametrize(
    ("accelerator", "devices", "cpus", "size"),
    [("auto", 1, None, (6, 1)), ("gpu", 2, 4, (4, 2)), ("cpu", 3, None, (3, 0)), ("cpu", 1, 64, (64, 0))],
)
def test_what_a_job_takes(accelerator: str, devices: int, cpus: int | None, size: tuple[int, int]) -> None:
    assert on_ray._size(job("", accelerator, devices).cfg, cpus, MACHINES) == size


@pytest.mark.parametrize(
    ("devices", "cpus", "message"), [(3, None, "trainer.devices=3 .* 1 to 2"), (1, 7, "cpus=7 .* 1 to 6")]
)
def test_what_no_machine_has(devices: int, cpus: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        on_ray._size(job("", "gpu", devices).cfg, cpus, MACHINES)


@pytest.fixture(scope="module")
def settings() -> Iterator[None]:
    """Environment variables that Ray reads when it is imported; the clusters are open to who knows the token."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
            patch.setenv(name, value)
        pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[ray]' -c constraints.txt")
        yield


@pytest.fixture(scope="module")
def address(settings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The head of a cluster of this machine that was started in a folder of its own; it says to have two GPUs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder = tmp_path_factory.mktemp("elsewhere")
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}",
             "--num-cpus=2", "--num-gpus=2", "--include-dashboard=false"],
            cwd=folder, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + 200
        while "Ray runtime started" not in (folder / "output").read_text():
            assert process.poll() is None and time.monotonic() < limit, (folder / "output").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_gpus_and_the_working_directory(address: str, tmp_path: Path) -> None:
    """Each job has GPUs of its own, as many as ``trainer.devices``, and runs where the command was typed."""
    says = "import os, time; time.sleep(3); print(os.getcwd(), os.environ.get('CUDA_VISIBLE_DEVICES'))"
    jobs = [job(says), job(says), job(says, devices=2), job(says, "cpu"), job("raise SystemExit(2)"), job("os.abort()")]
    results = on_ray.run_on_ray(jobs, address, record=tmp_path, command=PYTHON, cpus=1)
    assert [result.code for result in results] == [0, 0, 0, 0, 2, 1]
    assert [json.loads((tmp_path / f"jobs/{n}.json").read_text())["code"] for n in range(6)] == [0, 0, 0, 0, 2, 1]
    printed = [(tmp_path / f"jobs/{number}.log").read_text().split() for number in range(4)]
    assert {words[0] for words in printed} == {os.getcwd()}
    gpus = [words[1:] for words in printed]
    assert sorted(gpus[:2]) == [["0"], ["1"]] and gpus[2] == ["0,1"] and gpus[3] in ([], ["None"])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there(settings: None, address: str) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.address='{address}'"):
        on_ray.run_on_ray([job("")], address)


def start(*typed: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "src.train", "-m", "hydra/launcher=ray", *typed]
    return subprocess.Popen(words, cwd=tiny.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.parametrize("joins", [False, True])
def test_a_sweep(settings: None, request: pytest.FixtureRequest, tmp_path: Path, joins: bool) -> None:
    """Distributed jobs, one of which fails; typed again, what is finished is skipped. Results at a relative path."""
    cluster = [f"hydra.launcher.address={request.getfixturevalue('address')}"] if joins else []
    tiny.write_images(tmp_path)
    typed = (
        *tiny.overrides(tmp_path, 2), *cluster, "trainer=ddp_cpu", "hydra.launcher.cpus=1", "model.G=3,0",
        f"paths.results={os.path.relpath(tmp_path, tiny.ROOT)}", f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    for skipped in (0, 1):
        process = start(*typed)
        output = process.communicate(timeout=400)[0]
        assert process.returncode == 1 and "Traceback" not in output, output
        assert "2 runs: 1 done, 1 failed" in output and "ended with exit code 2: model.G=0 is not allowed" in output
        assert output.count("finished before, skipped") == skipped
    (folder,) = (tmp_path / "runs" / "jointiq").glob("[!.]*")
    assert [row["step"] for row in tiny.rows(folder) if "train/loss" in row] == ["0", "1"]


@pytest.mark.slow
def test_a_stopped_sweep_saves(settings: None, tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    process = start(
        *tiny.overrides(tmp_path, 100000), "lmbda=0.5,0.06", "hydra.launcher.cpus=2", f"paths.results={tmp_path}"
    )
    while not list(tmp_path.glob("runs/*/*/metrics.csv")) and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 143 and "2 runs: 1 cut, 1 waiting" in output and "Traceback" not in output, output
    (last,) = tmp_path.glob("runs/*/*/checkpoints/last.ckpt")
    (log,) = tmp_path.glob("sweeps/*/jobs/*.log")
    assert "stopped at step" in log.read_text() and last.is_file()
