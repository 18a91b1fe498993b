"""The process that decodes damaged files."""

import os
import signal

import numpy as np
import pytest

from jointiq.coding.image_codec import encode_image
from tools.fuzzing import worker
from tools.fuzzing.damage import damaged_file


@pytest.fixture(scope="module")
def process():
    process = worker.Worker()
    yield process
    process.stop()


def test_three_hundred_damaged_files(process):
    outcomes = {}
    for index in range(300):
        data = damaged_file(process.files, 7, index)
        outcomes[index] = process.decode(data)
    assert {index: outcome for index, outcome in outcomes.items() if outcome not in worker.CLEAN} == {}
    assert list(outcomes.values()).count("error") > 250


def test_valid_files_are_decoded(process):
    assert {process.decode(data) for data in process.files} == {"exact"}
    assert len(set(process.files)) == len(worker.CONFIGS) * len(worker.SIZES)


def test_failures_are_noticed(monkeypatch):
    model = worker.busy_model(worker.CONFIGS[0])
    data = encode_image(model, np.zeros((20, 20, 3), np.uint8), estimate=False).data
    assert worker._outcome(model, data, set()) == "wrong latents"
    monkeypatch.setattr(worker, "decode_latents", lambda model, data: 1 / 0)
    assert worker._outcome(model, data, set()).startswith("ZeroDivisionError")


def test_a_worker_that_dies_is_noticed(process):
    """The last of those that share it."""
    os.kill(process._process.pid, signal.SIGSEGV)
    process._process.join(10)
    assert process.decode(b"JIQ").startswith("crash")
