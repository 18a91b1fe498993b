import os
import signal
import sys

import numpy as np
import pytest

from src import fuzz
from src.errors import UserError
from src.models.image_codec import encode_image


@pytest.fixture(scope="module")
def worker():
    worker = fuzz.Worker()
    yield worker
    worker.stop()


def test_three_hundred_damaged_files(worker):
    outcomes = {}
    for index in range(300):
        data = fuzz.damaged_file(worker.files, 7, index)
        outcomes[index] = worker.decode(data)
    assert {index: outcome for index, outcome in outcomes.items() if outcome not in fuzz.CLEAN} == {}
    assert list(outcomes.values()).count("error") > 250


def test_valid_files_are_decoded(worker):
    assert {worker.decode(data) for data in worker.files} == {"exact"}
    assert len(set(worker.files)) == len(fuzz.CONFIGS) * len(fuzz.SIZES)


def test_every_kind_of_damage(worker):
    for mutation in fuzz.MUTATIONS:
        made = {mutation(np.random.default_rng(seed), worker.files) for seed in range(20)}
        assert len(made - set(worker.files)) >= 4, mutation.__name__


def test_files_depend_on_seed_and_number_only(worker):
    first = [fuzz.damaged_file(worker.files, 1, index) for index in range(20)]
    assert first == [fuzz.damaged_file(worker.files, 1, index) for index in range(20)]
    assert first != [fuzz.damaged_file(worker.files, 2, index) for index in range(20)]


def test_failures_are_noticed(monkeypatch):
    model = fuzz.busy_model(fuzz.CONFIGS[0])
    data = encode_image(model, np.zeros((20, 20, 3), np.uint8), estimate=False).data
    assert fuzz._outcome(model, data, set()) == "wrong latents"
    monkeypatch.setattr(fuzz, "decode_latents", lambda model, data: 1 / 0)
    assert fuzz._outcome(model, data, set()).startswith("ZeroDivisionError")


def test_a_worker_that_dies_is_noticed():
    worker = fuzz.Worker()
    os.kill(worker._process.pid, signal.SIGSEGV)
    worker._process.join(10)
    assert worker.decode(b"JIQ").startswith("crash")
    worker.stop()


def test_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "3", "--seed", "5"])
    outcomes = iter([(0, b"a", "error"), (1, b"b", "wrong latents"), (2, b"c", "exact")])
    monkeypatch.setattr(fuzz, "fuzz", lambda count, seed: outcomes)
    assert fuzz.main() == 1
    assert "1 clean errors, 1 with the exact latents, 1 failures" in capsys.readouterr().out
    assert (tmp_path / "results/fuzz/seed5-1.jiq").read_bytes() == b"b"

    monkeypatch.setattr(fuzz, "fuzz", lambda count, seed: iter([(0, b"a", "error")]))
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "1"])
    assert fuzz.main() == 0


def test_bad_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "0"])
    with pytest.raises(UserError, match="count=0"):
        fuzz.main()
