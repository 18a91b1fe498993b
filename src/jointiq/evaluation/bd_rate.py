"""Bjontegaard delta rate: how many percent more bits one codec needs than another at equal quality.

The arithmetic is that of the package ``bjontegaard``. Added here are the rules that make a number worth quoting:
quality is in dB (MS-SSIM as -10 log10(1 - mean)), method and overlap are part of the result, and nothing is
extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass

from jointiq.errors import ConfigError, DataError
from jointiq.evaluation.metrics import ms_ssim_db
from jointiq.evaluation.rd import MS_SSIM, PSNR, RDCurve

METRICS = {"psnr": PSNR, "ms-ssim": MS_SSIM}
METHODS = ("pchip", "akima", "cubic")
MIN_POINTS = 4
#: Below this share of the range of quality, two curves are hardly comparable, and their BD-rate is marked.
LITTLE_OVERLAP = 0.25

#: Kind of :class:`NoBDRate` of a curve with fewer than :data:`MIN_POINTS` points.
TOO_FEW = "with too few rates for a BD-rate"


class NoBDRate(DataError):
    """Two curves have no BD-rate.

    Attributes:
        kind: kind of the reason, by which such pairs are listed together.
        curve: the curve that is the reason alone, and has no BD-rate with any other either.
    """

    def __init__(self, kind: str, message: str, curve: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.curve = curve


@dataclass(frozen=True)
class BDRate:
    """BD-rate of ``test`` against ``anchor``.

    Attributes:
        percent: change of the rate; negative: fewer bits at the same quality.
        low, high: bounds in dB of the quality range that both curves cover, over which the mean is taken.
        overlap: size of that range as a share of the range that either curve covers.
        anchor_points, test_points: RD points of the curves.
    """

    anchor: str
    test: str
    metric: str
    method: str
    percent: float
    low: float
    high: float
    overlap: float
    anchor_points: int
    test_points: int


def quality_db(curve: RDCurve, metric: str) -> list[float]:
    """Return the quality of each point in dB: PSNR, or -10 log10(1 - MS-SSIM).

    Raises:
        NoBDRate: the curve has no such metric.
    """
    key = METRICS[metric]
    if key not in curve.results:
        raise NoBDRate(f"without {metric}", f'{curve.name} has no "{key}"; it has: {", ".join(curve.results)}')
    values = curve.results[key]
    return [ms_ssim_db(value) for value in values] if metric == "ms-ssim" else list(values)


def _checked(curve: RDCurve, metric: str) -> tuple[list[float], list[float]]:
    """Return rates and qualities of a curve after checking that the quality rises with the rate."""
    rates, quality = list(curve.bpp), quality_db(curve, metric)
    if len(rates) < MIN_POINTS:
        message = f"{curve.name} has {len(rates)} points; BD-rate needs at least {MIN_POINTS}"
        raise NoBDRate(TOO_FEW, message, curve.name)
    for i in range(1, len(rates)):
        if rates[i] <= rates[i - 1] or quality[i] <= quality[i - 1]:
            raise NoBDRate(
                "with a curve that does not rise",
                f"{curve.name}: {metric} does not rise with the rate from {rates[i - 1]:.4f} bpp "
                f"({quality[i - 1]:.3f} dB) to {rates[i]:.4f} bpp ({quality[i]:.3f} dB); BD-rate needs a rising curve",
            )
    return rates, quality


def bd_rate(anchor: RDCurve, test: RDCurve, metric: str = "psnr", method: str = "pchip") -> BDRate:
    """Return the BD-rate of ``test`` against ``anchor``.

    Args:
        anchor: the curve that counts as 0 %.
        test: the curve to judge.
        metric: ``psnr`` or ``ms-ssim``.
        method: ``pchip`` (piecewise cubic through every point, the usual choice), ``akima`` or ``cubic`` (one cubic
            fitted to log rate, Bjontegaard's original).

    Raises:
        ConfigError: unknown metric or method.
        NoBDRate: under 4 points, a curve that does not rise, or curves whose quality ranges do not overlap.
    """
    if metric not in METRICS:
        raise ConfigError("metric", metric, METRICS)
    if method not in METHODS:
        raise ConfigError("method", method, METHODS)
    anchor_rates, anchor_quality = _checked(anchor, metric)
    test_rates, test_quality = _checked(test, metric)
    low, high = max(anchor_quality[0], test_quality[0]), min(anchor_quality[-1], test_quality[-1])
    if low >= high:
        raise NoBDRate(
            "without a common range of quality",
            f"{anchor.name} ({anchor_quality[0]:.2f} to {anchor_quality[-1]:.2f} dB) and {test.name} "
            f"({test_quality[0]:.2f} to {test_quality[-1]:.2f} dB) do not overlap in {metric}; BD-rate is never "
            "extrapolated",
        )
    # Imported late, because it imports SciPy and Matplotlib.
    import bjontegaard

    percent = bjontegaard.bd_rate(
        anchor_rates,
        anchor_quality,
        test_rates,
        test_quality,
        method=method,
        require_matching_points=False,
        min_overlap=0,
    )
    whole = max(anchor_quality[-1], test_quality[-1]) - min(anchor_quality[0], test_quality[0])
    return BDRate(
        anchor=anchor.name,
        test=test.name,
        metric=metric,
        method=method,
        percent=float(percent),
        low=low,
        high=high,
        overlap=(high - low) / whole,
        anchor_points=len(anchor),
        test_points=len(test),
    )
