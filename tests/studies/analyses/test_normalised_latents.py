from __future__ import annotations

import numpy as np
import pytest

from jointiq.coding.image_codec import to_tensor
from jointiq.errors import DataError
from jointiq.studies.analyses.normalised_latents import likeness, neighbour_covariance, normalise


def test_covariance_of_neighbours_of_a_board_and_of_noise():
    board = np.indices((8, 8)).sum(0) % 2 * 2.0 - 1
    noise = np.random.default_rng(0).normal(0, 1, (200, 200))
    assert neighbour_covariance(board[None])[0] == pytest.approx(-1)
    assert neighbour_covariance(noise[None])[0] == pytest.approx(0, abs=0.02)


def test_normalising_by_a_model_undoes_what_the_model_knows(living, picture):
    model = living(G=1, global_context=False, mprm=False)
    y_hat, normalised = normalise(model, to_tensor(picture(96, 112)))
    assert y_hat.shape == normalised.shape == (10, 6, 7)
    assert np.array_equal(y_hat, np.round(y_hat)) and not np.array_equal(y_hat, normalised)
    with pytest.raises(DataError, match="G = 1"):
        normalise(living(), to_tensor(picture(96, 112)))


def test_constant_channels_do_not_count():
    rng = np.random.default_rng(1)
    y_hat = np.stack([np.zeros((6, 6)), np.cumsum(rng.normal(0, 1, (6, 6)), 1)])
    before, after = likeness([(y_hat, y_hat / 2)])
    assert before.variance == pytest.approx(y_hat[1].var()) and after.variance == pytest.approx(y_hat[1].var() / 4)
    assert before.correlation == pytest.approx(after.correlation) == before.best
