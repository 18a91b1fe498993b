from __future__ import annotations

from pathlib import Path

from jointiq.data.image_sets import ImageSet
from jointiq.studies.analyses.visual import _nearest, _wanted
from tests.studies.contexts import IMAGES, a_context, a_run

BPP = {0.5: (0.1, 0.9), 0.1: (0.4, 0.2)}


def test_the_rows_of_an_image_are_found_under_another_name(tmp_path):
    def rows(one):
        return [{"image": path.name, "bpp": bpp} for path, bpp in zip(IMAGES.paths, BPP[one.lmbda], strict=True)]

    context = a_context(tmp_path, [a_run("one", BPP)], rows)
    renamed = ImageSet("set", (Path("b.png"), Path("x.bmp")), IMAGES.hashes)
    one, quality, row = _nearest(context, "one", renamed, Path("x.bmp"), 0.3)
    assert (one.lmbda, quality, row["bpp"], row["image"]) == (0.1, None, 0.2, "x.bmp")


def test_a_model_of_all_rates_is_shown_at_the_nearest_quality(tmp_path):
    context = a_context(tmp_path, [a_run("all", [0.1])], None)
    rates = {10.0: (0.1, 0.2), 50.0: (0.3, 0.5), 90.0: (0.8, 1.1)}
    context.measured[context.trained[0].measured_as] = {
        quality: dict(zip(IMAGES.hashes, ({"bpp": bpp} for bpp in pair), strict=True))
        for quality, pair in rates.items()
    }
    _, quality, row = _nearest(context, "all", IMAGES, IMAGES.paths[1], 0.4)
    assert (quality, row["bpp"]) == (50.0, 0.5)


def test_named_images_are_shown_where_a_set_has_them(tmp_path):
    context = a_context(tmp_path, [a_run("one", BPP)], None)
    second = IMAGES.paths[1]
    options = {"runs": ["one"], "target_bpp": 0.3}
    assert _wanted(context, IMAGES, options) == [("one", IMAGES.paths[0], 0.3)]
    assert _wanted(context, IMAGES, {**options, "images": [second.stem, "no_such"]}) == [("one", second, 0.3)]
