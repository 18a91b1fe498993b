"""What refined latents save, from rows that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jointiq.coding.refine import RECIPE, SGA_PLUS
from jointiq.data.images import read_image, write_png
from jointiq.errors import ConfigError, DataError
from jointiq.evaluation.measuring import Measured
from jointiq.evaluation.models import ModelMaker
from jointiq.runs.folder import mark_done
from jointiq.studies.analyses import refinement
from jointiq.studies.analyses.refinement import Way, _cropped, _saved, analyse
from jointiq.studies.plan import Value
from tests.studies.contexts import IMAGES, a_context, a_run

QUALITIES = [10, 40, 70, 100]
#: Percent saved by the steps of a refinement.
SAVED = {0: 0.0, 10: 5.0, 40: 10.0}


def row_of(maker, image):
    """The second image has twice the bits; of the rates each doubles the bits and adds 3 dB."""
    point = QUALITIES.index(maker.quality)
    saved = SAVED[maker.refine] + (0 if image == "a.png" else 1) * (maker.refine > 0)
    saved -= 2 * (maker.recipe.variant == SGA_PLUS)
    bpp = 0.1 * 2**point * (2 if image == "b.png" else 1) * (1 - saved / 100)
    return {
        "checkpoint": maker.name,
        "image": image,
        "bpp": bpp,
        "psnr": 28 + 3 * point,
        "encoding_time": 1 + maker.refine,
    }


@pytest.fixture
def pretended(monkeypatch):
    """Measured rows, and the makers that were asked for."""
    asked = []

    def measure(makers, images, cache, workers, advance):
        asked.extend(makers)
        return [[Measured(maker, name, row_of(maker, name)) for name, _ in images] for maker in makers]

    def makers_of(checkpoints, device, qualities):
        """A run without qualities: models of one rate, which stand here for the points that they would give."""
        pairs = [(one, q) for one in checkpoints for q in qualities or ()] or zip(checkpoints, QUALITIES, strict=True)
        return [ModelMaker(one, device, f"{one} q{q}", quality=q) for one, q in pairs]

    monkeypatch.setattr(refinement, "measure", measure)
    monkeypatch.setattr(refinement, "makers_of", makers_of)
    return asked


def of_all_rates(name, qualities=QUALITIES):
    return replace(a_run(name, [0.5]), qualities=tuple(qualities))


def test_bits_saved_are_paired_by_image_and_have_an_interval(pretended, tmp_path):
    context = a_context(tmp_path, [of_all_rates("mine")], None)
    context.trained[0].folder.mkdir()
    mark_done(context.trained[0].folder, 70)
    value = Value("saved by 40 steps", "not in the papers", "", {"system": "mine", "steps": 40})
    object.__setattr__(context.scale, "values", (value,))
    options = {"steps": [10, 40], "variants": [RECIPE.variant, SGA_PLUS], "compared": [40]}
    findings = analyse(context, options)
    assert len(pretended) == 4 * (1 + 2 + 1)
    (table,) = findings.tables
    assert [(row[1], row[2]) for row in table.rows] == [("sga", "10"), ("sga", "40"), ("sga+", "40")]
    assert [float(row[3].split()[0]) for row in table.rows] == pytest.approx([5.5, 10.5, 8.5], abs=0.01)
    assert [row[4] for row in table.rows] == ["11.00", "41.00", "41.00"] and {row[5] for row in table.rows} == {"2"}
    (ours,) = findings.ours
    assert ours.numbers["low"] < ours.numbers["mean"] == pytest.approx(10.5) and ours.numbers["images"] == 2
    assert all(path.is_file() for path, _ in findings.figures)


def test_models_of_one_rate_are_refined_as_they_are_and_a_refined_run_is_not(pretended, tmp_path):
    refined = replace(of_all_rates("refined"), refine=40)
    context = a_context(tmp_path, [a_run("four", [0.5, 0.3, 0.1, 0.05]), refined], None)
    for one in context.of("four"):
        one.folder.mkdir()
        mark_done(one.folder, 70)
    (table,) = analyse(context, {"steps": [10]}).tables
    assert [row[0] for row in table.rows] == ["four"] and len(pretended) == 4 * 2


def test_crops_of_images_with_one_name_are_several(tmp_path, picture):
    for place, seed in (("a", 1), ("b", 2)):
        (tmp_path / place).mkdir()
        write_png(tmp_path / place / "1.png", picture(40, 50, seed))
    context = a_context(tmp_path, [], None)
    crops = [_cropped(context, tmp_path / place / "1.png", (32, 24)) for place in "ab"]
    assert [read_image(crop).shape for crop in crops] == [(32, 24, 3)] * 2 and len(set(crops)) == 2


def test_images_without_a_bd_rate_are_left_out():
    def rows(psnrs):
        return [{"checkpoint": str(i), "bpp": 0.1 * (i + 1), "psnr": psnr} for i, psnr in enumerate(psnrs)]

    plain, way = [rows([28, 30, 32, 34]), rows([28, 30, 29, 34])], Way("sga", 5)
    effect, count = _saved({Way(): plain, way: plain}, way)
    assert count == 1 and effect.mean == pytest.approx(0)


def test_what_cannot_be_analysed(pretended, tmp_path):
    with pytest.raises(ConfigError, match="variants"):
        analyse(a_context(tmp_path, [of_all_rates("four")], None), {"variants": ["noise"]})
    with pytest.raises(DataError, match="no system has 4 rates"):
        analyse(a_context(tmp_path, [of_all_rates("few", QUALITIES[:3])], None), {})
    assert len(IMAGES.paths) == 2
