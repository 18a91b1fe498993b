from __future__ import annotations

import json
from pathlib import Path

import pytest

from jointiq.data.image_sets import ImageSet
from jointiq.studies.rows import read_rows, write_rows

ROWS = [{"image": "a.png", "bpp": 1.0}, {"image": "b.png", "bpp": 2.0}]


def images(*named: str) -> ImageSet:
    """A set of images ``NAME:PIXELS``."""
    pairs = [text.split(":") for text in named]
    return ImageSet("set", tuple(Path(name) for name, _ in pairs), tuple(pixels for _, pixels in pairs))


def test_rows_follow_the_pixels(tmp_path):
    write_rows(tmp_path / "rows.json", images("a.png:1", "b.png:2"), ROWS)
    assert read_rows(tmp_path / "rows.json", images("a.png:1", "b.png:2")) == ROWS
    assert read_rows(tmp_path / "rows.json", images("b.png:2", "a.png:1")) == ROWS[::-1]
    renamed = read_rows(tmp_path / "rows.json", images("a.bmp:2", "x.bmp:1"))
    assert renamed == [{"image": "a.bmp", "bpp": 2.0}, {"image": "x.bmp", "bpp": 1.0}]
    assert read_rows(tmp_path / "rows.json", images("a.png:1", "b.png:3")) is None
    assert read_rows(tmp_path / "none.json", images("a.png:1")) is None


def test_the_same_picture_twice(tmp_path):
    twice = images("a.png:1", "b.png:1")
    write_rows(tmp_path / "rows.json", twice, ROWS)
    assert [row["image"] for row in read_rows(tmp_path / "rows.json", twice)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("given", "bpp"),
    [(("a.png:1", "b.png:2"), [1, 2]), (("b.png:2", "a.png:1"), [2, 1]), (("x.png:1", "b.png:2"), None)],
)
def test_rows_without_hashes_follow_the_names(tmp_path, given, bpp):
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    rows = read_rows(tmp_path / "rows.json", images(*given))
    assert (rows and [row["bpp"] for row in rows]) == bpp


def test_rows_without_hashes_whose_names_are_not_their_own_do_not_count(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([ROWS[0], ROWS[0]]))
    assert read_rows(tmp_path / "rows.json", images("a.png:1", "a.png:2")) is None
