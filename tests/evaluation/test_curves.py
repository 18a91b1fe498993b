"""Curves out of the points of runs."""

from __future__ import annotations

from dataclasses import replace
from statistics import stdev
from typing import Any

import pytest

from jointiq.evaluation.curves import is_of_runs, join_points
from jointiq.evaluation.rd import RDCurve, curve_from_rows


def point(
    lmbda: float, bpp: float, seed: int = 0, key: str = "k", typed: tuple[str, ...] = (), images: int = 2, **more: Any
) -> RDCurve:
    """What a run leaves: images of rate ``bpp`` and 0.1 more."""
    rows = [
        {"image": f"{n}.png", "width": 8, "height": 8, "bpp": bpp + 0.1 * n, "psnr": 30 + 10 * bpp, "lmbda": lmbda,
         "seed": seed, "decoding_time": bpp}
        for n in range(images)
    ]  # fmt: skip
    curve = curve_from_rows(more.get("name", "jointiq"), [("last.ckpt", rows)])
    return curve.with_about({"curve": key, "experiment": "jointiq", "typed": list(typed)})


def test_a_point_is_the_mean_over_seeds_and_their_spread_is_kept() -> None:
    (curve,) = join_points([point(0.5, 0.2), point(0.06, 0.8), point(0.5, 0.3, seed=1), point(0.5, 0.3, seed=1)])
    assert curve.parameter == ("0.5", "0.06") and is_of_runs(curve)
    assert curve.bpp == pytest.approx((0.3, 0.85))
    assert curve.results["psnr-rgb"] == pytest.approx((32.5, 38.0))
    (spread,) = curve.about["spread"]
    assert (spread["lmbda"], spread["seeds"]) == (0.5, 2) and "decoding_time" not in spread
    assert spread["bpp"] == pytest.approx(stdev([0.25, 0.35])) and spread["psnr-rgb"] == pytest.approx(stdev([32, 33]))


def test_joined_again_it_is_the_same() -> None:
    (curve,) = join_points([point(0.5, 0.2), point(0.5, 0.3, seed=1), point(0.06, 0.8)])
    assert join_points([curve, point(0.5, 0.2)]) == [curve]


def test_a_measured_curve_names_the_runs_that_it_is_of() -> None:
    """It is joined with the points of its runs, whose own numbers count; what is no mean is kept."""
    own = [point(0.5, 0.2), point(0.06, 0.8)]
    measured = join_points([point(0.5, 0.3), point(0.06, 0.8)])[0]
    measured = replace(measured, name="Mine", results={**measured.results, "parameters": (7.0, 7.0)})
    for points in ([*own, measured], [measured, *own]):
        (curve,) = join_points(points)
        assert curve.name == "Mine" and curve.bpp == pytest.approx((0.25, 0.85))
        assert curve.results["parameters"] == (7.0, 7.0)
    (curve,) = join_points([*own, measured, point(0.12, 0.4)])
    assert len(curve) == 3 and "parameters" not in curve.results


def test_points_of_a_model_of_all_rates_are_named_by_quality() -> None:
    points = [point(0.5, 0.2), point(0.06, 0.8)]
    for one, quality in zip(points, (1, 50.5), strict=True):
        for row in one.images:
            row["quality"] = quality
    assert join_points(points)[0].parameter == ("quality 1", "quality 50.5")


def test_other_keys_and_other_images_are_other_curves() -> None:
    points = [point(0.5, 0.2), point(0.06, 0.8), point(0.23, 0.4, key="l"), point(0.12, 0.6, images=3)]
    assert [curve.parameter for curve in join_points(points)] == [("0.5", "0.06"), ("0.23",), ("0.12",)]


def test_curves_of_one_name_are_told_apart_by_what_was_typed() -> None:
    common = ("data=folder", "scale=cpu")
    points = [point(0.5, 0.2, typed=common), point(0.5, 0.2, key="l", typed=(*common, "model.G=1"))]
    points.append(point(0.5, 0.2, key="m", name="other", typed=("model.G=2",)))
    assert [curve.name for curve in join_points(points)] == ["jointiq", "jointiq model.G=1", "other"]
