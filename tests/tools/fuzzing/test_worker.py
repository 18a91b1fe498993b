"""The process that reads damaged and odd files, and what it reads."""

import os
import signal

import numpy as np
import pytest

from jointiq.coding.image_codec import encode_image
from tools.fuzz import WHAT
from tools.fuzzing import bitstreams, worker
from tools.fuzzing.worker import Case


@pytest.fixture(scope="module")
def files():
    return bitstreams.Bitstreams()


def test_a_hundred_damaged_files(files):
    outcomes = [worker.outcome(files, worker.make(files, 7, index)) for index in range(100)]
    assert [one for one in outcomes if one not in worker.CLEAN] == []
    assert outcomes.count("error") > 80


def test_valid_files_are_decoded(files):
    assert {worker.outcome(files, Case("a.jiq", data)) for data in files.files} == {"right"}
    assert len(set(files.files)) == len(bitstreams.CONFIGS) * len(bitstreams.SIZES)


def test_failures_are_noticed(files, monkeypatch):
    data = encode_image(files.models[0], np.zeros((20, 20, 3), np.uint8), estimate=False).data
    assert worker.outcome(files, Case("a.jiq", data)) == "AssertionError: wrong latents"
    monkeypatch.setattr(bitstreams, "decode_latents", lambda model, data: 1 / 0)
    assert worker.outcome(files, Case("a.jiq", data)).startswith("ZeroDivisionError")


@pytest.mark.slow
def test_a_worker_that_dies_is_noticed():
    process = worker.Worker("bitstreams")
    try:
        assert process.run(1, 0)[1] in worker.CLEAN
        os.kill(process._process.pid, signal.SIGSEGV)
        process._process.join(10)
        assert process.run(1, 1)[1].startswith("crash")
    finally:
        process.stop()


@pytest.mark.slow
@pytest.mark.parametrize("what", WHAT)
def test_forty_files_of_every_kind(what):
    outcomes = [outcome for _, _, outcome in worker.fuzz(what, 40, 3)]
    assert len(outcomes) == 40 and [one for one in outcomes if one not in worker.CLEAN] == []
