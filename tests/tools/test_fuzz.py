import sys

import pytest

from jointiq.errors import UserError
from tools import fuzz
from tools.fuzzing import worker
from tools.fuzzing.worker import Case


def test_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "3", "--seed", "5"])
    made = zip(b"abc", ("error", "wrong latents", "right"), strict=True)
    outcomes = [(index, Case("x.jiq", bytes([byte])), outcome) for index, (byte, outcome) in enumerate(made)]
    monkeypatch.setattr(worker, "fuzz", lambda what, count, seed: iter(outcomes))
    assert fuzz.main() == 1
    assert "3 bitstreams (seed 5): 1 clean errors, 1 read right, 1 failures" in capsys.readouterr().out
    assert (tmp_path / "results/fuzz/bitstreams-seed5-1.jiq").read_bytes() == b"b"

    monkeypatch.setattr(worker, "fuzz", lambda what, count, seed: iter(outcomes[:1]))
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "1"])
    assert fuzz.main() == 0


def test_bad_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "0"])
    with pytest.raises(UserError, match="count=0"):
        fuzz.main()
