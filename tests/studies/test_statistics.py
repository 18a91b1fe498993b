from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from jointiq.studies.statistics import paired_effect


def draw(rng, effect=0.0, lambdas=4, seeds=3, images=24, seed_std=0.01, image_std=0.01):
    """Measurements with an image's own level, a chance of the training and a chance of (image, system)."""
    level = rng.normal(0, 1, (lambdas, 1, images))
    theirs = rng.normal(0, image_std, images)
    test = level + effect + theirs + rng.normal(0, seed_std, (lambdas, seeds, 1))
    anchor = level + rng.normal(0, seed_std, (lambdas, seeds, 1))
    return list(test), list(anchor)


def test_without_chance_of_training_it_is_the_paired_t_test():
    test, anchor = draw(np.random.default_rng(0), effect=0.003, seed_std=0)
    effect = paired_effect(test, anchor)
    differences = np.mean([t.mean(0) - a.mean(0) for t, a in zip(test, anchor, strict=True)], axis=0)
    low, high = ttest_rel(differences, np.zeros_like(differences)).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((low, high), rel=1e-6)
    assert effect.seed_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("seed_std", "image_std"), [(0.01, 0.001), (0.001, 0.01), (0.01, 0.01)])
def test_the_interval_holds_the_true_effect_about_as_often_as_it_says(seed_std, image_std):
    rng = np.random.default_rng(1)
    effects = [paired_effect(*draw(rng, 0.02, seed_std=seed_std, image_std=image_std)) for _ in range(400)]
    share = np.mean([effect.low < 0.02 < effect.high for effect in effects])
    assert 0.92 <= share <= 0.985


def test_degrees_of_freedom_lie_between_the_parts_and_their_sum():
    effect = paired_effect(*draw(np.random.default_rng(2), image_std=1e-9))
    assert effect.degrees == pytest.approx(16, abs=0.5) or 8 <= effect.degrees <= 16


def test_a_sign_needs_an_interval_without_zero_and_repeated_seeds():
    rng = np.random.default_rng(3)
    assert paired_effect(*draw(rng, 0.1)).sign == 1
    assert paired_effect(*draw(rng, -0.1)).sign == -1
    assert paired_effect(*draw(rng, 0.0005)).sign == 0
    single = paired_effect(*draw(rng, 0.1, seeds=1))
    assert single.seed_error is None and single.sign == 0


def test_a_fixed_anchor_needs_no_seeds():
    test, anchor = draw(np.random.default_rng(4), 0.1)
    fixed = paired_effect(test, [one[:1] for one in anchor], fixed_anchor=True)
    assert fixed.seed_error is not None and fixed.sign == 1
    assert paired_effect(test, [one[:1] for one in anchor]).seed_error is None


def test_equal_measurements_have_no_chance_and_one_image_has_no_interval():
    same = [np.ones((2, 3))]
    effect = paired_effect(same, same)
    assert (effect.mean, effect.low, effect.high) == (0, 0, 0)
    assert paired_effect([np.ones((1, 1))], [np.zeros((1, 1))]).high == np.inf
