"""Sweeps as they are typed: every job a process, failed and finished jobs, other launchers, sweepers that optimise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper

from jointiq.evaluation.rd import RDCurve, write_rd
from jointiq.runs import folder as run_folder
from jointiq.runs import rd_point
from jointiq.runs.job_notes import note_file, read_note
from jointiq.runs.status import read_sweep
from jointiq.sweeps import sweep as sweeps
from jointiq.sweeps.jobs import Job
from jointiq.sweeps.sweep import JobFailed
from tests.training import tiny
from tests.training.typed import error_line, own, rows, run, start


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tiny.write_images(folder)
    return folder


def finish(*overrides: str) -> None:
    """Leave what a finished run leaves."""
    job = Job.of(overrides)
    assert job.folder is not None
    run_folder.describe(job.folder, job.cfg)
    (job.folder / "metrics.csv").write_text("step,val/loss,val/psnr\n1,2.5,30\n")
    run_folder.mark_done(job.folder, 2)
    curve = RDCurve(
        "x",
        {"bpp": (0.5,), "psnr-rgb": (30.0,)},
        about={"test_images": rd_point.identity_of(rd_point.images_of(job.cfg))},
    )
    write_rd(job.folder / "rd.json", curve)


def test_every_job_of_a_sweep_is_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each says that it does not take the name of its W&B group for a number."""
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    job = ("+experiment=jointiq", "scale=demo", "trainer=cpu", f"paths.results={tmp_path}")
    wrong = 'data.num_workers="${oc.decode:${oc.env:WANDB_RUN_GROUP,0}}"'
    mine = f"hydra.sweep.dir={tmp_path / 'mine'}"
    assert run(monkeypatch, "-m", *job, wrong, "lmbda=0.5,0.06", "sweep.jobs=1", mine) == 1
    told = capfd.readouterr()
    assert told.err.count("data.num_workers='mine' is not allowed") == 2
    assert "[1/2] +experiment=jointiq" in told.out and "2 runs: 2 failed" in told.out
    assert re.search(r"lmbda=0\.06 +failed .* exit code 2", told.out)


def test_what_is_finished_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = ("+experiment=jointiq", "scale=demo", f"paths.results={tmp_path}")
    for lmbda in ("0.06", "0.03"):
        finish(*job, f"lmbda={lmbda}")
    assert run(monkeypatch, "-m", *job, "lmbda=0.06,0.03") == 0
    assert capfd.readouterr().out.count("finished before, skipped") == 2


def test_mistakes_of_a_sweep_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = (f"paths.results={tmp_path}", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    mistakes = (
        ("sweep.jobs=0", "sweep.jobs=0"), (f"rerun={tmp_path}", "no config.yaml"), ("lmbda=0.5,1.5", "lmbda=1.5"),
    )  # fmt: skip
    for wrong, message in mistakes:
        assert run(monkeypatch, "-m", "+experiment=jointiq", "seed=0,1", wrong, *where) == 2
        assert message in error_line(capsys)


class OptimisingSweeper(Sweeper):
    """Launches two batches, as a sweeper that optimises does, and reads what the jobs return."""

    __module__ = "hydra_plugins.of_these_tests"
    returned: ClassVar[list[JobReturn]] = []

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        arguments = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        self.launcher = Plugins.instance().instantiate_launcher(**arguments)

    def __init__(self, **settings: Any) -> None: ...

    def sweep(self, arguments: list[str]) -> None:
        self.returned.clear()
        batches = [[[*arguments, "lmbda=0.5"], [*arguments, "model.G=0"]], [[*arguments, "lmbda=0.06"]]]
        for batch in batches:
            self.returned += self.launcher.launch(batch, initial_job_idx=len(self.returned))


class OtherLauncher(Launcher):
    """Starts nothing; as if all jobs waited in a cluster's queue."""

    __module__ = "hydra_plugins.of_these_tests"
    handed_over: ClassVar[list[list[str]]] = []

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.record = Path(config.hydra.sweep.dir)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        assert [one.state for one in read_sweep(self.record)] == ["waiting"] * len(job_overrides)
        self.handed_over[:] = map(list, job_overrides)
        return []


class LosingLauncher(OtherLauncher):
    """Loses a job while another one trains."""

    __module__ = "hydra_plugins.of_these_tests"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise RuntimeError("Job 17 with path P\nhas not produced any output\nand a long story")


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module as an installed plugin of Hydra's has it."""
    module = ModuleType("hydra_plugins.of_these_tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for plugin in (OptimisingSweeper, OtherLauncher, LosingLauncher):
        setattr(module, plugin.__name__, plugin)
        Plugins.instance().register(plugin)


def typed(folder: Path, launcher: str) -> tuple[str, ...]:
    plugin = f"hydra.launcher._target_=hydra_plugins.of_these_tests.{launcher}"
    return ("-m", plugin, f"hydra.sweep.dir={folder}", f"paths.results={folder / 'r'}")


@pytest.mark.slow
def test_a_sweeper_gets_what_the_trainings_have_come_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = ("+experiment=jointiq", "scale=demo", f"paths.results={tmp_path}", "optimized_metric=val/psnr")
    for lmbda in ("0.5", "0.06"):
        finish(*job, f"lmbda={lmbda}")
    sweeper = "hydra.sweeper._target_=hydra_plugins.of_these_tests.OptimisingSweeper"
    place = ("sweep.jobs=1", f"hydra.sweep.dir={tmp_path / 's'}")
    assert run(monkeypatch, "-m", "hydra/sweeper=basic", sweeper, *job, *place) == 0
    first, failed, last = OptimisingSweeper.returned
    assert (first.status, first.return_value, last.return_value) == (JobStatus.COMPLETED, 30.0, 30.0)
    assert failed.status == JobStatus.FAILED
    with pytest.raises(JobFailed, match="exit code 2"):
        _ = failed.return_value
    told = capfd.readouterr()
    assert "model.G=0 is not allowed" in told.err and "Traceback" not in told.err
    assert [one.state for one in read_sweep(tmp_path / "s")] == ["done", "failed", "done"]


@pytest.mark.slow
def test_jobs_of_another_launcher_are_waiting_until_they_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "7.json").write_text("of another sweep")
    options = ("+experiment=jointiq,lee2019", "seed=range(2)", "data=folder")
    assert run(monkeypatch, *typed(tmp_path, "OtherLauncher"), *options) == 1
    output = capsys.readouterr().out
    assert f"4 jobs started; how all stand: python -m src.status {tmp_path}" in output and "4 runs: 4 waiting" in output
    assert len(OtherLauncher.handed_over) == 4
    for overrides, name in zip(OtherLauncher.handed_over, ("jointiq", "jointiq", "lee2019", "lee2019"), strict=True):
        folder = Job.of(overrides).folder
        assert folder is not None and folder.parent.name == name


def test_another_launcher_gets_what_is_to_be_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not what is finished; a job that it numbers anew finds its number by what is typed for it."""
    job = ("+experiment=jointiq", "scale=demo", f"paths.results={tmp_path / 'r'}")
    finish(*job, "lmbda=0.5")
    states: list[list[str]] = []
    monkeypatch.setattr(
        OtherLauncher, "launch",
        lambda self, jobs, initial_job_idx: states.append([" ".join(map(" ".join, jobs)), str(initial_job_idx)]),
    )  # fmt: skip
    assert run(monkeypatch, *typed(tmp_path, "OtherLauncher"), *job[:2], "lmbda=0.5,0.06") == 1
    output = capsys.readouterr().out
    assert "[1/2] finished before, skipped" in output and "2 runs: 1 done, 1 waiting" in output
    ((handed_over, first),) = states
    assert "lmbda=0.06" in handed_over and "lmbda=0.5" not in handed_over and first == "0"
    other = Job.of((*job[:2], "lmbda=0.06", job[2]))
    notes = {number: read_note(note_file(tmp_path, number)).overrides for number in (0, 1)}
    assert sweeps._number(tmp_path, replace(other, overrides=tuple(notes[1])), 0) == 1
    assert sweeps._number(tmp_path, replace(other, overrides=("typed=elsewhere",)), 0) == 0


@pytest.fixture
def training_elsewhere(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that trains a run until its input ends."""
    code = (
        "import sys, pathlib; from jointiq.runs.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    job = Job.of(("+experiment=jointiq", "lmbda=0.06", f"paths.results={tmp_path / 'r'}"))
    assert job.folder is not None
    job.folder.mkdir(parents=True)
    command = [sys.executable, "-c", code, str(job.folder)]
    with subprocess.Popen(command, cwd=tiny.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        yield process


def test_a_job_that_another_launcher_loses_is_one_line_and_the_others_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    training_elsewhere: subprocess.Popen[bytes],
) -> None:
    waited: list[float] = []

    def end_it(seconds: float) -> None:
        waited.append(seconds)
        training_elsewhere.communicate()
        assert training_elsewhere.returncode == 0

    monkeypatch.setattr(sweeps, "time", SimpleNamespace(sleep=end_it))
    assert run(monkeypatch, *typed(tmp_path, "LosingLauncher"), "+experiment=jointiq", "lmbda=0.5,0.06") == 1
    assert len(waited) == 1
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "error: Job 17 with path P has not produced any output; other jobs go on, the same command tries this one again"
    ]
    assert "2 runs: 2 waiting" in told.out


@pytest.mark.slow
def test_a_sweeper_gets_the_metric_of_a_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Path) -> None:
    common = (*own(images), "trainer.max_steps=1", f"paths.results={tmp_path}")
    sweeper = "hydra.sweeper._target_=hydra_plugins.of_these_tests.OptimisingSweeper"
    assert run(monkeypatch, "-m", "hydra/sweeper=basic", sweeper, *common) == 0
    folders = [Job.of((*common, f"lmbda={lmbda}")).folder for lmbda in ("0.5", "0.06")]
    values = [float(rows(folder)[-1]["val/loss"]) for folder in folders if folder is not None]
    assert [OptimisingSweeper.returned[number].return_value for number in (0, 2)] == values


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_is_stopped_saves_its_jobs(tmp_path: Path, images: Path, number: int, code: int) -> None:
    command = (*own(images), "trainer.max_steps=100000", "trainer.max_time=null", f"paths.results={tmp_path}")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "src.train", "-m", *command, "lmbda=0.5,0.06", "sweep.jobs=1"],
        cwd=tiny.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    while not list(tmp_path.glob("runs/*/*/metrics.csv")) and process.poll() is None:
        time.sleep(0.2)
    if number == signal.SIGINT:  # a terminal's Ctrl-C comes to all processes
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == code, output
    assert "2 runs: 1 cut, 1 waiting" in output and "Traceback" not in output
    (last,) = tmp_path.glob("runs/*/*/checkpoints/last.ckpt")
    assert f"stopped at step {torch.load(last, weights_only=True)['global_step']}" in output


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
    process = start("-m", *own(images), "trainer.max_steps=1", "lmbda=0.5", "model.G=0,3", f"paths.results={tmp_path}")
    output = process.communicate(timeout=110)[0]
    assert process.returncode == 1, output
    assert "2 runs: 1 done, 1 failed" in output and "exit code 2" in output
    (folder,) = (tmp_path / "runs" / "jointiq").iterdir()
    assert folder.name.startswith("lmbda0.5_") and (folder / "checkpoints" / "last.ckpt").is_file()
