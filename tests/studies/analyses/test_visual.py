from __future__ import annotations

from pathlib import Path

from jointiq.data.image_sets import ImageSet
from jointiq.studies.analyses.visual import _nearest
from tests.studies.contexts import IMAGES, a_context, a_run

BPP = {0.5: (0.1, 0.9), 0.1: (0.4, 0.2)}


def test_the_rows_of_an_image_are_found_under_another_name(tmp_path):
    def rows(one):
        return [{"image": path.name, "bpp": bpp} for path, bpp in zip(IMAGES.paths, BPP[one.lmbda], strict=True)]

    context = a_context(tmp_path, [a_run("one", BPP)], rows)
    renamed = ImageSet("set", (Path("b.png"), Path("x.bmp")), IMAGES.hashes)
    one, row = _nearest(context, "one", renamed, Path("x.bmp"), 0.3)
    assert (one.lmbda, row["bpp"], row["image"]) == (0.1, 0.2, "x.bmp")
