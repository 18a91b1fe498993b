"""The queue of runs: how many at a time, on which GPU, what is skipped, what failures and signals do to the others."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jointiq.errors import ConfigError
from jointiq.runs import folder as run_folder
from jointiq.runs.status import read_sweep
from jointiq.sweeps import resources
from jointiq.sweeps.jobs import Job, run_jobs
from tests.training import tiny

#: Instead of a training, a job runs its override as a line of Python.
PYTHON = (sys.executable, "-S", "-c")


def job(line: str) -> Job:
    return Job((line,), OmegaConf.create({"ckpt_path": None}), None)


def test_a_failure_stops_no_other(tmp_path: Path) -> None:
    lines = ("pass", "import os; os._exit(2)", "print(7)", "import os; os.abort()")
    results = run_jobs([job(line) for line in lines], record=tmp_path, command=PYTHON)
    assert [result.code for result in results] == [0, 2, 0, 128 + signal.SIGABRT]
    assert [result.failed for result in results] == [False, True, False, True]
    assert [json.loads((tmp_path / "jobs" / f"{n}.json").read_text())["code"] for n in range(4)] == [0, 2, 0, 134]
    assert [run.state for run in read_sweep(tmp_path)] == ["done", "failed", "done", "failed"]


def test_a_sweep_may_come_in_batches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "7.json").write_text("of another sweep")
    for first in (0, 2):
        run_jobs([job("pass"), job("print(7)")], record=tmp_path, first=first, command=PYTHON)
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == [f"{number}.json" for number in range(4)]
    assert "[3/4] pass" in capfd.readouterr().out


def test_several_at_a_time_on_their_gpus(tmp_path: Path) -> None:
    waits = "import os, time; time.sleep(0.5); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    since = time.monotonic()
    results = run_jobs([job(waits)] * 4, at_once=4, gpus=["0,1", "2,3"], record=tmp_path, command=PYTHON)
    assert time.monotonic() - since < 1.9  # one after the other takes 2.0
    assert all(result.code == 0 for result in results)
    printed = [(tmp_path / "jobs" / f"{number}.log").read_text() for number in range(4)]
    assert printed == ["0,1\n", "2,3\n", "0,1\n", "2,3\n"]


def test_logs_of_the_same_jobs_stay(tmp_path: Path) -> None:
    for lines in (("print(1)", "print(2)", "print(3)"), ("print(1)", "print(4)")):
        run_jobs([job(line) for line in lines], at_once=2, record=tmp_path, command=PYTHON)
    logs = {path.name: path.read_text() for path in (tmp_path / "jobs").glob("*.log")}
    assert logs == {"0.log": "1\n1\n", "1.log": "4\n"}


def test_a_failed_job_says_why_beside_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The terminal and the table of the sweep, where what it prints goes to a file."""
    refused = "import os; print('error: lmbda=2 is not allowed', flush=True); print('bye', flush=True); os._exit(2)"
    crashed, killed = "print('step 1'); 1 / 0", "import os; print('step 7', flush=True); os.kill(os.getpid(), 9)"
    lines = (refused, crashed, killed, "pass")
    results = run_jobs([job(line) for line in lines], at_once=2, record=tmp_path, command=PYTHON)
    messages = ["lmbda=2 is not allowed", "ZeroDivisionError: division by zero", "", ""]
    assert [result.message for result in results] == messages
    told = capfd.readouterr().out
    assert "[1/4] ended with exit code 2: lmbda=2 is not allowed\n" in told
    assert "[3/4] ended with exit code 137\n" in told
    assert [run.note for run in read_sweep(tmp_path)] == [
        "exit code 2: lmbda=2 is not allowed", "exit code 1: ZeroDivisionError: division by zero", "exit code 137", ""
    ]  # fmt: skip
    # The same job, killed at its second try: what it said at the first does not count.
    again = "import os, pathlib; p = pathlib.Path('tried'); tried = p.exists(); p.touch(); "
    again += "print('error: x' if not tried else 'step 1', flush=True); os.kill(os.getpid(), 9)"
    notes = []
    for _ in range(2):
        line = again.replace("'tried'", repr(str(tmp_path / "tried")))
        run_jobs([job(line)] * 1, at_once=2, record=tmp_path / "again", command=PYTHON)
        notes += [run.note for run in read_sweep(tmp_path / "again")]
    assert notes == ["exit code 137: x", "exit code 137"]


def test_jobs_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    line = "import os; print('threads', os.environ.get('OMP_NUM_THREADS'))"
    cores = len(os.sched_getaffinity(0))
    run_jobs([job(line)], at_once=2, command=PYTHON)
    run_jobs([job(line)], command=PYTHON)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run_jobs([job(line)], at_once=2, command=PYTHON)
    told = [text.split()[1] for text in capfd.readouterr().out.splitlines() if text.startswith("threads")]
    assert told == [str(max(cores // 2, 1)), "None", "5"]


def test_finished_runs_are_skipped(tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    texts = (*tiny.overrides(tmp_path), f"paths.results={tmp_path}", "lmbda=0.1")
    done = Job.of(texts)
    assert done.folder is not None and done.folder.parent == tmp_path / "runs" / "jointiq" and not done.is_finished()
    run_folder.describe(done.folder, done.cfg)
    assert not done.is_finished()
    run_folder.mark_done(done.folder, 6)
    assert done.is_finished()
    assert not Job.of((*texts, "resume=never")).is_finished() and not Job.of((*texts, "seed=1")).is_finished()
    (result,) = run_jobs([done], command=(sys.executable, "-c", "raise SystemExit(3)"))
    assert result.skipped and result.code == 0


def test_the_metric_of_a_run_is_that_of_its_last_validation(tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    texts = (*tiny.overrides(tmp_path), f"paths.run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match="optimized_metric='val/loss'.*there was none"):
        Job.of(texts).metric()
    run_folder.describe(tmp_path / "run", Job.of(texts).cfg)
    (tmp_path / "run" / "metrics.csv").write_text("step,val/loss,val/psnr\n2,3.5,30\n5,2.5,31\n")
    assert Job.of(texts).metric() == 2.5 and Job.of((*texts, "optimized_metric=val/psnr")).metric() == 31.0
    with pytest.raises(ConfigError, match="optimized_metric='psnr' is not allowed; allowed: one of val/loss, val/psnr"):
        Job.of((*texts, "optimized_metric=psnr")).metric()


def test_a_job_with_a_wrong_configuration_has_no_folder() -> None:
    assert Job.of(("+experiment=jointiq", "scale=paper", "lmbda=0.4")).folder is None


def test_sigterm_reaches_the_jobs_and_starts_no_more(tmp_path: Path) -> None:
    saves = (
        "import signal, sys, time, os; signal.signal(15, lambda *_: sys.exit(143)); "
        "os.kill(os.getppid(), 15); time.sleep(20)"
    )
    results = run_jobs([job("pass"), job(saves), job("pass")], record=tmp_path, command=PYTHON)
    assert [result.code for result in results] == [0, 143, None]
    assert not any(result.failed for result in results)


class StoppedAtItsStart(Job):
    """SIGTERM comes to the sweep while it is starting this job."""

    def is_finished(self) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False


def test_sigterm_reaches_a_job_that_is_being_started() -> None:
    stopped = StoppedAtItsStart(("import time; time.sleep(20)",), OmegaConf.create(), None)
    assert [result.code for result in run_jobs([stopped, job("pass")], command=PYTHON)] == [143, None]


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
    chosen = [text for text in settings if "." not in text and not text.startswith("threads")]
    cfg = tiny.config("scale=demo", *chosen)
    for text in settings:
        cfg = cfg if text in chosen else tiny.changed(cfg, text)
    assert resources.places(cfg, {"CUDA_VISIBLE_DEVICES": visible}) == expected


@pytest.mark.parametrize("wrong", ["sweep.jobs=0", "sweep.per_gpu=0", "sweep.jobs=many", "trainer.devices=3"])
def test_wrong_places(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.split("=")[0]):
        resources.places(tiny.config("scale=demo", "trainer=gpu", wrong), {"CUDA_VISIBLE_DEVICES": "0,1"})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """One of its jobs fails; the others are skipped, continued or started, and end as in an unbroken sweep."""
    tiny.write_images(tmp_path)
    pace = ("callbacks.checkpoint.every_steps=5", "trainer.val_check_interval=15")
    common = ("-m", *tiny.overrides(tmp_path, 100), *pace, "model.G=1,0,2")
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
        # A job that outlives the sweep is stopped, and a stop leaves out the validation after the step.
        rows, expected = tiny.rows(part), tiny.rows(whole)
        missing = [row for row in expected if row not in rows]
        assert rows == [row for row in expected if row not in missing]
        assert len(missing) <= kills and all("val/loss" in row for row in missing)
