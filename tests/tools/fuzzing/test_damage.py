"""Damaged files: different from the valid ones, and the same for the same seed."""

import numpy as np
import pytest

from jointiq.bitstream.container import Container
from tools.fuzzing import damage


@pytest.fixture
def files():
    return [Container(bytes([n] * 4), n % 2, 90, 70 + n, n, bytes(range(20)), bytes(200 + n)).pack() for n in range(3)]


def test_every_kind_of_damage(files):
    for mutation in damage.MUTATIONS:
        made = {mutation(np.random.default_rng(seed), files) for seed in range(20)}
        assert len(made - set(files)) >= 4, mutation.__name__


def test_files_depend_on_seed_and_number_only(files):
    first = [damage.damaged_file(files, 1, index) for index in range(20)]
    assert first == [damage.damaged_file(files, 1, index) for index in range(20)]
    assert first != [damage.damaged_file(files, 2, index) for index in range(20)]
