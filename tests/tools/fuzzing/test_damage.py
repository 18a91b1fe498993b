"""Damaged files: different from the valid ones, and the same for the same seed."""

import json

import numpy as np
import pytest

from jointiq.bitstream.container import Container
from tools.fuzzing import bitstreams, damage


@pytest.fixture
def files():
    return [Container(bytes([n] * 4), n % 2, 90, 70 + n, n, bytes(range(20)), bytes(200 + n)).pack() for n in range(3)]


def damaged(files, seed, index):
    return bitstreams.damaged_file(np.random.default_rng((seed, index)), files)


@pytest.mark.parametrize("mutation", bitstreams.MUTATIONS)
def test_every_kind_of_damage(files, mutation):
    made = {mutation(np.random.default_rng(seed), files) for seed in range(20)}
    assert len(made - set(files)) >= 4


def test_files_depend_on_seed_and_number_only(files):
    first = [damaged(files, 1, index) for index in range(20)]
    assert first == [damaged(files, 1, index) for index in range(20)]
    assert first != [damaged(files, 2, index) for index in range(20)]
    assert not set(first) & set(files)


def test_values_of_a_document_are_replaced():
    document = {"name": "a", "results": {"bpp": [0.1, 0.2], "psnr-rgb": [30.0, 32.0]}}
    made = [
        repr(damage.damage_values(np.random.default_rng(seed), json.loads(json.dumps(document)))) for seed in range(20)
    ]
    assert len(set(made) - {repr(document)}) > 10
