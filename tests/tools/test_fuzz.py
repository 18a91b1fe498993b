import sys

import pytest

from jointiq.errors import UserError
from tools import fuzz
from tools.fuzzing import worker


def test_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "3", "--seed", "5"])
    outcomes = iter([(0, b"a", "error"), (1, b"b", "wrong latents"), (2, b"c", "exact")])
    monkeypatch.setattr(worker, "fuzz", lambda count, seed: outcomes)
    assert fuzz.main() == 1
    assert "1 clean errors, 1 with the exact latents, 1 failures" in capsys.readouterr().out
    assert (tmp_path / "results/fuzz/seed5-1.jiq").read_bytes() == b"b"

    monkeypatch.setattr(worker, "fuzz", lambda count, seed: iter([(0, b"a", "error")]))
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "1"])
    assert fuzz.main() == 0


def test_bad_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "0"])
    with pytest.raises(UserError, match="count=0"):
        fuzz.main()
