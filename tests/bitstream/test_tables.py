"""The fixed tables, entry by entry in arbitrary precision, and pinned for ever."""

import hashlib

import pytest
from mpmath import mp, mpf

from jointiq.bitstream.tables import (
    decision_probabilities,
    exp_table,
    inverse_sigma,
    normal_cdf,
    probability_to_level,
)

PINNED = {
    normal_cdf: "8026f93bd7526e5b996fc445ce41b1fe72691d3fa8190f13f4dda2ab3680103f",
    exp_table: "1e6f13fa9540f5f7c281f02c0b726df93db586debd137e3e6e21a089471d5fcb",
    inverse_sigma: "cedbac2bf2f9fc9e6a94f0e1c41ab41ad5953567d8272c7f2aa0c9d0f5e02f7f",
    decision_probabilities: "e8f688f23649a19a55d2f4d5a99e3fed8403b04256a73704ca2760f27f2bca7a",
    probability_to_level: "b2d6121f122303dde34caf981cb0496d847d3072dd32d268d9a591313e2f9991",
}


@pytest.fixture(autouse=True)
def forty_digits():
    with mp.workdps(40):
        yield


def check(table, exact, margin):
    """Each entry is its quantity rounded, and none is within ``margin`` of a tie: more than any libm is off by."""
    entries = table.tolist()
    assert len(entries) == len(exact)
    for entry, value in zip(entries, exact, strict=True):
        assert entry == int(mp.nint(value))
        assert abs(abs(value - mp.floor(value)) - mpf(1) / 2) > margin


def test_normal_cdf():
    # erfc of a rounded argument is off by less than 2^-50 of its value (below 2^30) plus 8 last digits of the argument.
    check(normal_cdf(), [2**30 * mp.ncdf(mpf(i - 8192) / 1024) for i in range(16385)], mpf("4e-6"))


def test_exp_table():
    check(exp_table(), [2**20 * mp.exp(-mpf(i) / 256) for i in range(4096)], mpf("1e-8"))


def test_inverse_sigma():
    sigmas = [mpf("0.11") * mp.exp(mpf(i) / 64) for i in range(630)]
    assert 2040 < sigmas[-1] < 2048
    check(inverse_sigma(), [2**24 / sigma for sigma in sigmas], mpf("1e-6"))


def logistic(x):
    return 1 / (1 + mp.exp(-x))


def test_decision_probabilities():
    reach = mp.log(32767)
    exact = [65536 * logistic(reach * (mpf(2 * i + 1) / 512 - 1)) for i in range(512)]
    check(decision_probabilities(), exact, mpf("1e-9"))
    assert bool((decision_probabilities().diff() >= 0).all())
    assert decision_probabilities()[0] == 2 and decision_probabilities()[-1] == 65534


def test_probability_to_level():
    reach = mp.log(32767)
    edges = [65536 * logistic(reach * (mpf(i) / 256 - 1)) for i in range(1, 512)]
    levels = probability_to_level().tolist()
    for i, edge in enumerate(edges, start=1):
        # The edge itself is integral once, at one half.
        assert abs(edge - mp.nint(edge)) > mpf("1e-9") or edge == 32768
        first = int(mp.ceil(edge))
        assert levels[first] >= i
        assert levels[first - 1] < i
    assert levels[0] == 0 and levels[-1] == 511 and levels == sorted(levels)


def test_the_edge_at_one_half_does_not_depend_on_libm():
    """logit 0 is exact in floating point: exp(-0) = 1 everywhere."""
    assert probability_to_level()[32767] == 255 and probability_to_level()[32768] == 256


@pytest.mark.parametrize("table", PINNED, ids=lambda table: table.__name__)
def test_pinned(table):
    assert hashlib.sha256(table().numpy().astype("<i8").tobytes()).hexdigest() == PINNED[table]
