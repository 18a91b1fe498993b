from __future__ import annotations

import math
from dataclasses import replace

import pytest

from jointiq.data.image_sets import ImageSet
from jointiq.errors import DataError
from jointiq.runs.folder import mark_done
from jointiq.studies.analyses.paired import _bd_rate, _effects, _samples, analyse, verdict
from jointiq.studies.plan import Value
from jointiq.studies.statistics import Effect
from tests.studies.contexts import IMAGES, a_context, a_run

#: bpp and PSNR of the trunk by lambda.
TRUNK = {0.5: (0.2, 28.0), 0.2: (0.4, 30.0), 0.1: (0.8, 33.0), 0.05: (1.4, 35.0)}


@pytest.mark.parametrize(
    ("low", "high", "seed_error", "paper", "expected"),
    [
        (0.1, 0.3, 0.01, 2.76, "sign as in the paper"),
        (-0.3, -0.1, 0.01, 2.76, "opposite sign"),
        (-0.1, 0.3, 0.01, 2.76, "inconclusive"),
        (0.1, 0.3, None, 2.76, "inconclusive"),
        (-0.3, -0.1, 0.01, -1.0, "sign as in the paper"),
        (0.1, 0.3, 0.01, "GRDN better", "sign as in the paper"),
        (0.1, 0.3, 0.01, "not in the paper", "above zero"),
        (-0.1, 0.3, 0.01, "not in the paper", "inconclusive"),
    ],
)
def test_a_sign_counts_only_if_the_interval_excludes_zero(low, high, seed_error, paper, expected):
    assert verdict(Effect((low + high) / 2, low, high, seed_error, 0.01, 10), paper) == expected


def rows_of(one):
    """Of the second image always twice as many bits; the test saves a tenth, the trunk's second seed is another."""
    bpp, psnr = TRUNK[one.lmbda]
    bpp *= 0.9 if one.run.name == "test" else 1
    psnr += 2.3 * one.seed if one.run.name == "trunk" else 0
    return [{"image": path.name, "bpp": k * bpp, "bytes": k, "psnr": psnr} for k, path in enumerate(IMAGES.paths, 1)]


def test_the_rate_at_each_lambda_is_paired_with_the_psnr_of_its_trunk(tmp_path):
    runs = [a_run("trunk", TRUNK, (0, 1)), *(a_run(name, TRUNK, (0, 1), "trunk") for name in ("anchor", "test"))]
    assert _bd_rate(a_context(tmp_path, runs, rows_of), IMAGES, "test", "anchor") == pytest.approx(-10)


def test_images_are_paired_by_their_pixels(tmp_path):
    context = a_context(tmp_path, [a_run("one", [0.5])], rows_of)
    turned = ImageSet("set", IMAGES.paths, IMAGES.hashes[::-1])
    assert [_samples(context, images, "one", "bits")[0.5].argmax() for images in (IMAGES, turned)] == [1, 0]


def joint(saved, along, slopes=(4.0, 7.0)):
    """Rows of models that are trained whole: test saves a share of the bits, and has moved along each image's curve."""

    def rows(one):
        found = []
        for k, (path, slope) in enumerate(zip(IMAGES.paths, slopes, strict=True), 1):
            size = math.log(k * 1000 / one.lmbda) + 0.01 * one.seed
            psnr = 20 + slope * math.log(k / one.lmbda) + slope * 0.01 * one.seed
            if one.run.name == "test":
                size, psnr = size + math.log(1 - saved) + along, psnr + slope * along
            found.append({"image": path.name, "bytes": math.exp(size), "psnr": psnr})
        return found

    return rows


def effect_of(tmp_path, lambdas, rows):
    context = a_context(tmp_path, [a_run(name, lambdas, (0, 1)) for name in ("anchor", "test")], rows)
    value = Value("saved", 8.61, "%", {"test": "test", "anchor": "anchor"})
    return _effects(context, IMAGES, value, "bits_at_equal_psnr")[None]


@pytest.mark.parametrize("along", [0.0, 0.2, -0.3])
def test_models_trained_whole_are_compared_at_equal_psnr(tmp_path, along):
    effect = effect_of(tmp_path, (0.5, 0.1), joint(0.1, along))
    assert effect.mean == pytest.approx(math.log(0.9)) and effect.sign == -1
    assert effect.low == pytest.approx(effect.high)


def test_no_slope_no_comparison(tmp_path):
    with pytest.raises(DataError, match="one lambda has no slope"):
        effect_of(tmp_path, (0.5,), joint(0.1, 0))
    with pytest.raises(DataError, match=r"PSNR of b.png does not rise with its bits"):
        effect_of(tmp_path, (0.5, 0.1), joint(0.1, 0, slopes=(4.0, -1.0)))


def test_what_is_saved_and_what_is_more_stand_in_tables_of_their_own(tmp_path):
    values = tuple(
        Value(name, 8.61, "%", {"test": "test", "anchor": "anchor", "sense": sense})
        for name, sense in (("more bits", "more"), ("bits saved", "less"))
    )
    context = a_context(tmp_path, [a_run(name, (0.5,), (0, 1)) for name in ("anchor", "test")], joint(0.1, 0))
    for one in context.trained:
        one.folder.mkdir()
        mark_done(one.folder, 10)
    findings = analyse(replace(context, scale=replace(context.scale, values=values)), {})
    tables = {table.title.split(": ")[1]: table for table in findings.tables if table.title.startswith("By lambda")}
    assert list(tables) == ["more bits (%), with 95 % interval", "bits saved (%), with 95 % interval"]
    more, saved = (table.rows[0][1].split()[0] for table in tables.values())
    assert (more, saved) == ("-10.00", "+10.00")
    # Of one lambda the mean over all says nothing more.
    assert all(list(table.header) == ["", "lambda 0.5"] for table in tables.values())
    assert [path.name for path, _ in findings.figures] == ["paired_bits_set.png", "paired_bits_saved_set.png"]
