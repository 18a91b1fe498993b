"""BD-rate of curves whose answer is known."""

from __future__ import annotations

import math

import pytest

from jointiq.errors import ConfigError, DataError
from jointiq.evaluation.bd_rate import METHODS, bd_rate
from jointiq.evaluation.rd import RDCurve

RATES = (0.1, 0.2, 0.4, 0.8, 1.6)


def curve(rates: tuple[float, ...], shift: float = 0.0, name: str = "curve", psnr: bool = True) -> RDCurve:
    """6 dB a doubling of the rate; MS-SSIM so that it is 4 dB a doubling in dB."""
    results = {"bpp": rates}
    if psnr:
        results["psnr-rgb"] = tuple(40 + shift + 6 * math.log2(rate) for rate in rates)
    results["ms-ssim-rgb"] = tuple(1 - 10 ** -(1.8 + 0.4 * math.log2(rate)) for rate in rates)
    return RDCurve(name, results)


def scaled(test: RDCurve, factor: float) -> RDCurve:
    return RDCurve("scaled", {**test.results, "bpp": tuple(rate * factor for rate in test.bpp)})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", ["psnr", "ms-ssim"])
@pytest.mark.parametrize("factor", [0.9, 1.25])
def test_rates_times_a_factor(method: str, metric: str, factor: float) -> None:
    rate = bd_rate(curve(RATES), scaled(curve(RATES), factor), metric, method)
    assert rate.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert rate.overlap == pytest.approx(1.0)
    assert (rate.method, rate.metric, rate.anchor_points, rate.test_points) == (method, metric, 5, 5)


def test_other_rates_on_the_same_curve_and_the_overlap() -> None:
    test = curve((0.15, 0.3, 0.5, 0.9, 1.7, 3.0), shift=6.0)  # 6 dB better: half the rate
    rate = bd_rate(curve(RATES), test)
    assert rate.percent == pytest.approx(-50, abs=1e-3)
    assert rate.low == pytest.approx(46 + 6 * math.log2(0.15))
    assert rate.high == pytest.approx(40 + 6 * math.log2(1.6))
    whole = 46 + 6 * math.log2(3.0) - (40 + 6 * math.log2(0.1))
    assert rate.overlap == pytest.approx((rate.high - rate.low) / whole)


def test_nothing_is_extrapolated() -> None:
    # Far below the common range the test curve needs 90 times the rate; that must not show.
    anchor = curve((0.2, 0.4, 0.8, 1.6))
    test = RDCurve(
        "test", {"bpp": (0.09, *RATES), "psnr-rgb": (40 + 6 * math.log2(0.001), *curve(RATES).results["psnr-rgb"])}
    )
    assert bd_rate(anchor, test).percent == pytest.approx(0, abs=1e-6)


def test_under_four_points() -> None:
    with pytest.raises(DataError, match="short has 3 points; BD-rate needs at least 4"):
        bd_rate(curve(RATES), curve(RATES[:3], name="short"))


def test_no_overlap() -> None:
    with pytest.raises(DataError, match="do not overlap in psnr; BD-rate is never extrapolated"):
        bd_rate(curve(RATES), curve(RATES, shift=60))


def test_a_curve_that_does_not_rise() -> None:
    bad = RDCurve("bad", {"bpp": RATES, "psnr-rgb": (30.0, 32.0, 31.9, 34.0, 35.0)})
    with pytest.raises(DataError, match="bad: psnr does not rise .* 0.2000 bpp .* 0.4000 bpp"):
        bd_rate(curve(RATES), bad)


def test_a_metric_that_is_not_there() -> None:
    with pytest.raises(DataError, match='curve has no "psnr-rgb"'):
        bd_rate(curve(RATES), curve(RATES, psnr=False))


def test_unknown_choices() -> None:
    with pytest.raises(ConfigError, match="metric='ssim'.*psnr, ms-ssim"):
        bd_rate(curve(RATES), curve(RATES), "ssim")
    with pytest.raises(ConfigError, match="method='spline'.*pchip, akima, cubic"):
        bd_rate(curve(RATES), curve(RATES), "psnr", "spline")
