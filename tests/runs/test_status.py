"""The table of runs: which are done, running, failed, cut or waiting."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from jointiq.commands import status as entry
from jointiq.errors import run_cli
from jointiq.evaluation.rd import RDCurve, write_rd
from jointiq.runs import folder as run_folder
from jointiq.runs.job_notes import note_job
from jointiq.runs.lock import locked
from jointiq.runs.status import (
    RunStatus,
    note_failure,
    read_folders,
    read_run,
    read_sweep,
    status_table,
    write_status,
)
from tests.training import tiny

VALUES = {"step": 3, "steps": 9, "bpp": 0.25, "psnr": 30.5, "seconds_left": 61.4}


def test_a_run_that_is_trained_is_running(tmp_path: Path) -> None:
    write_status(tmp_path, VALUES)
    with locked(tmp_path):
        assert read_run(tmp_path, "x") == RunStatus("x", "running", 3, 9, 0.25, 30.5, 61.4)
    assert read_run(tmp_path, "x").state == "cut"


def test_states(tmp_path: Path) -> None:
    assert read_run(tmp_path).state == "waiting"
    write_status(tmp_path, VALUES)
    assert read_run(tmp_path).state == "cut" and read_run(tmp_path).seconds_left is None
    assert [read_run(tmp_path, code=code).state for code in (0, 130, 143)] == ["cut"] * 3
    assert (read_run(tmp_path, code=137).state, read_run(tmp_path, code=137).note) == ("failed", "exit code 137")
    note_failure(tmp_path, "the loss is not finite")
    failed = read_run(tmp_path)
    assert (failed.state, failed.note, failed.step) == ("failed", "the loss is not finite", 3)
    run_folder.mark_done(tmp_path, 9)
    assert read_run(tmp_path).state == "done"


def test_a_chain_shows_the_stage_it_is_at(tmp_path: Path) -> None:
    for name in ("1_joint", "2_enhancer", "2_enhancer.old1"):
        (tmp_path / name).mkdir()
        write_status(tmp_path / name, VALUES)
    assert (read_run(tmp_path).state, read_run(tmp_path).note) == ("cut", "2_enhancer")


def test_a_run_of_an_earlier_version_has_its_lock_inside(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    assert read_run(tmp_path).state == "waiting"
    write_status(tmp_path, VALUES)
    assert read_run(tmp_path).state == "cut"


def test_no_failure_is_noted_where_there_is_no_run(tmp_path: Path) -> None:
    note_failure(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done, cut = tmp_path / "runs" / "a", tmp_path / "runs" / "b"
    for folder in (done, cut):
        write_status(folder, VALUES)
        run_folder.describe(folder, tiny.config("+experiment=jointiq"))
    run_folder.mark_done(done, 9)
    jobs = ((done, 0), (cut, None), (tmp_path / "none", None), (None, 2))
    for number, (folder, code) in enumerate(jobs):
        note_job(tmp_path / "sweep", number, ("scale=demo", f"lmbda=0.{number}"), folder, code)
    runs = read_sweep(tmp_path / "sweep")
    assert [run.state for run in runs] == ["done", "cut", "waiting", "failed"]
    table = status_table(runs)
    assert table.title == "4 runs: 1 done, 1 failed, 1 cut, 1 waiting"
    assert [row[0] for row in table.rows] == [f"lmbda=0.{number}" for number in range(4)]
    assert list(table.rows[0][1:]) == ["done", "3", "9", "0.2500", "30.50", "–", ""]

    shutil.copytree(done, done.with_name(f"{done.name}.old1"))
    assert [run.name for run in read_folders([tmp_path])] == ["runs/a", "runs/b"]  # not what was moved aside
    monkeypatch.setattr(sys, "argv", ["src.status", str(tmp_path / "sweep")])
    with pytest.raises(SystemExit) as exit_info:
        run_cli(entry.main)
    assert exit_info.value.code == 0 and "1 done, 1 failed" in capsys.readouterr().out


def test_why_a_job_failed(tmp_path: Path) -> None:
    """What the run has noted itself, else what the sweep has seen of it; sweeps of earlier versions saw nothing."""
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    note_job(tmp_path, 0, ("seed=0",), run, 2, "init_from: no such file")
    note_job(tmp_path, 1, ("seed=1",), None, 2, "lmbda=2 is not allowed")
    (tmp_path / "jobs" / "2.json").write_text(json.dumps({"overrides": ["seed=2"], "folder": None, "code": 2}))
    noted = ["exit code 2: init_from: no such file", "exit code 2: lmbda=2 is not allowed", "exit code 2"]
    assert [(one.state, one.note) for one in read_sweep(tmp_path)] == [("failed", note) for note in noted]
    write_status(run, {**VALUES, "failure": "the loss is not finite"})
    assert read_sweep(tmp_path)[0].note == "the loss is not finite"


def test_numbers_of_the_test_images_come_first(tmp_path: Path) -> None:
    write_status(tmp_path, VALUES)
    write_rd(tmp_path / "rd.json", RDCurve("x", {"bpp": (0.5,), "psnr-rgb": (29.0,)}))
    assert (read_run(tmp_path).bpp, read_run(tmp_path).measured) == (0.25, False)  # of an earlier training
    run_folder.mark_done(tmp_path, 9)
    assert (read_run(tmp_path).bpp, read_run(tmp_path).psnr) == (0.5, 29.0)
    (row,) = status_table([read_run(tmp_path)]).rows
    assert list(row[4:]) == ["0.5000", "29.00", "–", "test"]


def test_names_are_whole_in_80_columns() -> None:
    message = "the loss is not finite at step 3; last good checkpoint: none; a smaller optim.lr may help"
    names = [f"+experiment=ablation_no_gc_mprm lmbda=0.{number}" for number in (23, 12)]
    runs = [
        RunStatus(names[0], "done", 3000, 3000, 0.25, 30.5, note="", measured=True),
        RunStatus(names[1] + " seed=1", "failed", 300, 3000, 0.25, 30.5, 61.4, message),
    ]
    shown = io.StringIO()
    status_table(runs).print(Console(file=shown, width=80, force_terminal=True, no_color=True, color_system=None))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(" lmbda=0.12 seed=1   failed") for line in lines)
    assert all(any(word in line for line in lines) for word in ("0.2500", "30.50", "finite", "optim.lr"))
    piped = io.StringIO()
    status_table(runs).print(Console(file=piped, width=80))
    assert any(message in line and "0:01:01" in line for line in piped.getvalue().splitlines())


def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in (((), "no sweep in results/sweeps"), ((str(tmp_path),), f"{tmp_path}: no runs")):
        monkeypatch.setattr(sys, "argv", ["src.status", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            run_cli(entry.main)
        assert exit_info.value.code == 2 and message in capsys.readouterr().err


def test_a_status_that_cannot_be_written_or_read_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_status(tmp_path / "file", VALUES)
    (tmp_path / "status.json").write_text("{")
    assert read_run(tmp_path).state == "waiting"
    (tmp_path / "status.json").write_text(json.dumps([1]))
    assert read_run(tmp_path).state == "waiting"
