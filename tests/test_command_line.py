"""Commands as they are printed, to be typed again."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from jointiq.command_line import command


@pytest.mark.parametrize("path", ["a/b-c.d", "with space", "it's", "back\\slash", "key=value", "[x]", "ä,b"])
def test_printed_commands_survive_shell_and_hydra(path: str) -> None:
    words = shlex.split(command(rerun=path))
    assert words[:3] == ["python", "-m", "src.train"]
    assert OverridesParser.create().parse_override(words[3]).value() == path
