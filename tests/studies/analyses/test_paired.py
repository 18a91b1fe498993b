from __future__ import annotations

import pytest

from src.studies.analyses.paired import verdict
from src.studies.statistics import Effect


@pytest.mark.parametrize(
    ("low", "high", "seed_error", "paper", "expected"),
    [
        (0.1, 0.3, 0.01, 2.76, "sign as in the paper"),
        (-0.3, -0.1, 0.01, 2.76, "opposite sign"),
        (-0.1, 0.3, 0.01, 2.76, "inconclusive"),
        (0.1, 0.3, None, 2.76, "inconclusive"),
        (-0.3, -0.1, 0.01, -1.0, "sign as in the paper"),
        (0.1, 0.3, 0.01, "GRDN better", "sign as in the paper"),
    ],
)
def test_a_sign_counts_only_if_the_interval_excludes_zero(low, high, seed_error, paper, expected):
    assert verdict(Effect((low + high) / 2, low, high, seed_error, 0.01, 10), paper) == expected
