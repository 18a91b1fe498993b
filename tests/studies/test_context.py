from __future__ import annotations

import pytest

from jointiq.data.image_sets import ImageSet
from jointiq.errors import DataError
from jointiq.runs.folder import mark_done
from jointiq.studies.context import steps_text
from tests.studies.contexts import IMAGES, a_context, a_run


def test_steps_are_those_of_the_stages_that_count(tmp_path):
    context = a_context(tmp_path, [a_run("full", [0.5])], None)
    (one,) = context.trained
    for name, steps in (("1_joint", 100), ("2_enhancer", 20), ("10_crop", 3), ("2_enhancer.old1", 7), ("", 3)):
        (one.folder / name).mkdir(parents=True, exist_ok=True)
        mark_done(one.folder / name, steps)
    assert one.steps == (100, 20, 3) and steps_text([one]) == "100 + 20 + 3"
    for name in ("11_more", "12_more"):
        (one.folder / name).mkdir()
        mark_done(one.folder / name, 5)
    assert steps_text([one]) == "133 in 5 trainings"


def test_rows_are_in_the_order_of_the_set(tmp_path):
    context = a_context(tmp_path, [a_run("one", [0.5])], lambda one: [{"image": "a.png", "bpp": bpp} for bpp in (1, 2)])
    turned = ImageSet("other", IMAGES.paths, IMAGES.hashes[::-1])
    (one,) = context.trained
    assert [[row["bpp"] for row in context.rows(one, images)] for images in (IMAGES, turned)] == [[1, 2], [2, 1]]
    with pytest.raises(DataError, match=r"one_0\.5_0: no rows of new"):
        context.rows(one, ImageSet("new", IMAGES.paths, ("3", "4")))


def test_a_model_of_all_rates_is_a_curve(tmp_path):
    context = a_context(tmp_path, [a_run("all", [0.06])], lambda one: [{"bpp": 1}, {"bpp": 2}])
    (one,) = context.trained
    rows = {q: {digest: {"bpp": q / 10, "psnr": 30 + q} for digest in IMAGES.hashes} for q in (50.0, 1.0, 100.0)}
    context.measured[one.measured_as] = rows
    curve = context.curve(["all"], IMAGES)
    assert curve.bpp == (0.1, 5.0, 10.0) and curve.parameter == ("quality 1", "quality 50", "quality 100")
    assert [row["bpp"] for row in context.rows(one, IMAGES)] == [5.0, 5.0]
