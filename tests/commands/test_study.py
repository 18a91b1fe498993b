from __future__ import annotations

import pytest

from jointiq.commands.study import main
from jointiq.errors import ConfigError, UserError
from jointiq.studies.plan import study_names


def test_without_a_name_the_studies_are_listed(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == study_names()
    assert all(line.endswith(")") and "paper" in line for line in lines)


def test_wrong_names_scales_and_numbers_are_user_errors():
    for arguments in (["no_such"], ["fig1", "--scale", "pilot"], ["fig1", "--jobs", "0"]):
        with pytest.raises(ConfigError):
            main(arguments)


def test_the_plan_lists_commands_and_trains_nothing(capsys, tmp_path):
    assert main(["fig8b", "--scale", "pilot", "--plan", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if line.startswith("to do     python -m src.train +experiment=")]
    assert lines[:14] == commands
    assert "trainings: 14 of 14 to do, 18000 steps" in lines and lines[-1].startswith("analyses: ")
    assert "lee2019" in lines[0] and "init_from=" in lines[2]
    assert not (tmp_path / "studies" / "runs").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [("lmda=3", "run trunk: lmda: no such key; nearest: lmbda"), ("+lmda=3", "lmda: nothing reads this key"),
     ("optim.lr=oops", "optim.lr='oops' is not allowed")],
)  # fmt: skip
def test_a_wrong_override_is_found_before_the_first_training(tmp_path, typed, message):
    with pytest.raises(UserError, match=message):
        main(["fig8b", typed, "--results", str(tmp_path)])
    assert not (tmp_path / "studies" / "runs").exists()


def test_a_plan_without_trainings_says_so(capsys, tmp_path):
    assert main(["models", "--plan", "--results", str(tmp_path)]) == 0
    assert "\nnothing to train\nmeasured: 1 models, on sample" in capsys.readouterr().out


def test_a_plan_of_chains_counts_their_first_stages(capsys, tmp_path):
    assert main(["fig1", "--scale", "paper", "--plan", "--results", str(tmp_path)]) == 0
    assert "trainings: 16 of 16 to do, 30800000 steps in the first stage of each\n" in capsys.readouterr().out


def test_a_study_that_needs_no_training_runs_from_the_command_line(capsys, tmp_path):
    output = tmp_path / "out"
    assert main(["lee_fig7", "--scale", "demo", "--results", str(tmp_path), "--output", str(output)]) == 0
    assert "46.83 % of the" in capsys.readouterr().out
    assert {"results.json", "table.md", "table.csv", "report.md", "run_time.png", "run_time.svg"} <= {
        path.name for path in output.iterdir()
    }
    assert "Trainings" not in (output / "report.md").read_text()
