"""Commands as they are printed, to be typed again."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from jointiq.command_line import command
from jointiq.commands.evaluate import _checkpoints
from jointiq.configs import CONFIGS, compose
from jointiq.runs.folder import describe
from tests.marks import slow
from tests.training.typed import error_line, last, run


@pytest.mark.parametrize("path", ["a/b-c.d", "with space", "it's", "back\\slash", "key=value", "[x]", "ä,b"])
def test_printed_commands_survive_shell_and_hydra(path: str) -> None:
    words = shlex.split(command(rerun=path))
    assert words[:3] == ["python", "-m", "src.train"]
    assert OverridesParser.create().parse_override(words[3]).value() == path


#: A folder's name as the documentation quotes it for a shell and Hydra, with its key.
QUOTED = re.compile(r"""`('(\w+)="(results/runs/[^"`]*=[^"`]*)"')`""")


@pytest.mark.parametrize("key", ["checkpoint", "ckpt_path", slow("init_from"), slow("rerun")])
def test_names_with_an_equals_sign_are_typed_as_the_documentation_says(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((shown, documented, folder),) = QUOTED.findall((CONFIGS.parent / "docs" / "comparing.md").read_text())
    (typed,) = shlex.split(shown.replace(documented, key))
    monkeypatch.chdir(tmp_path)
    if key == "checkpoint":
        one = Path(folder) / "lmbda0.03_seed0_x"
        describe(one, compose("train", ["+experiment=jointiq", "enhancer=vdsr"]))
        last(one).parent.mkdir(parents=True)
        last(one).touch()
        assert list(_checkpoints(compose("evaluate", [typed]).checkpoint).values()) == [[str(last(one))]]
    else:
        assert run(monkeypatch, typed, "+experiment=jointiq" if key != "rerun" else "seed=0") == 2
        assert f"{folder}" in error_line(capsys)
