from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jointiq.data.image_sets import (
    folder_name,
    link_folder,
    name_and_folder,
    read_set,
    refuse_listed,
    refuse_trained,
    write_manifest,
)
from jointiq.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path, picture):
    def make(name, *seeds, suffix="png"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            Image.fromarray(picture(20, 24, seed)).save(tmp_path / name / f"p{seed}.{suffix}")
        return tmp_path / name

    return make


def test_a_set_is_known_by_its_pixels_not_by_names_or_formats(folder, tmp_path):
    first, second = folder("a", 1, 2), folder("b", 1, 2, suffix="bmp")
    third = folder("c", 1, 3)
    sets = [read_set([str(place)], tmp_path) for place in (first, second, third)]
    assert sets[0].digest == sets[1].digest != sets[2].digest
    assert str(sets[0]) == f"a (2 images, {sets[0].digest})"


def test_folders_are_joined_and_may_be_named(folder, tmp_path):
    joined = read_set([f"mine={folder('a', 1)}", str(folder("x/train", 2))], tmp_path)
    assert joined.name == "mine+x/train" and len(joined.paths) == 2


def test_a_folder_with_an_equals_sign():
    for text, expected in (
        ("kodak=/d/a=b", ("kodak", "/d/a=b")), ("/d/a=b", ("", "/d/a=b")), ("a/b", ("", "a/b")), ("k=d", ("k", "d")),
    ):  # fmt: skip
        assert name_and_folder(text) == expected


def test_changed_images_are_looked_at_again(folder, tmp_path, picture):
    place = folder("a", 1)
    before = read_set([str(place)], tmp_path)
    Image.fromarray(picture(30, 24, 5)).save(place / "p1.png")
    assert read_set([str(place)], tmp_path).digest != before.digest


def test_images_that_were_trained_on_are_refused(folder, tmp_path):
    train = read_set([str(folder("train", 1, 2))], tmp_path)
    test = read_set([str(folder("test", 2, 3, suffix="bmp"))], tmp_path)
    with pytest.raises(DataError, match=r"1 of the 2 images of .*test.* first .*p2\.bmp \(p2\.png"):
        refuse_trained(test, train)
    refuse_trained(read_set([str(folder("other", 3))], tmp_path), train)
    manifest = write_manifest(train, tmp_path / "manifest.json")
    with pytest.raises(DataError, match="training set"):
        refuse_listed(test, manifest)
    with pytest.raises(ConfigError, match="--manifest"):
        refuse_listed(test, tmp_path / "none.json")


def test_linked_folders_hold_the_images_of_all_places(folder, tmp_path, picture):
    images = read_set([str(folder("a", 1, 2)), str(folder("b", 1, 3))], tmp_path)
    target = link_folder(images, tmp_path / "images")
    assert target.name == images.digest and len(list(target.iterdir())) == 4
    assert all(np.asarray(Image.open(path)).shape == (20, 24, 3) for path in target.iterdir())
    assert link_folder(images, tmp_path / "images") == target
    assert (tmp_path / "images" / f"{images.digest}.json").is_file()


def test_folder_names_that_say_nothing_get_their_parents(tmp_path):
    assert folder_name(tmp_path / "cid22" / "val") == "cid22/val"
    assert folder_name(tmp_path / "kodak") == "kodak"


def test_the_order_in_which_folders_are_given_changes_nothing_that_is_trained_on(folder, tmp_path):
    places = [str(folder("a", 2, 1)), str(folder("b", 3, 1))]
    first = link_folder(read_set(places, tmp_path), tmp_path / "images")
    before = {path.name: path.resolve() for path in first.iterdir()}
    (first / "00007_p9.png").symlink_to(tmp_path / "elsewhere.png")  # of an earlier version of the set
    again = link_folder(read_set(places[::-1], tmp_path), tmp_path / "images")
    after = {path.name: path.resolve() for path in again.iterdir()}
    assert again == first and sorted(after) == sorted(before)
    assert all(after[name].read_bytes() == before[name].read_bytes() for name in before)


def test_links_follow_images_that_moved(folder, tmp_path):
    link_folder(read_set([str(folder("a", 1, 2))], tmp_path), tmp_path / "images")
    folder("a", 1, 2).rename(tmp_path / "b")
    (tmp_path / "b" / "p1.png").rename(tmp_path / "b" / "z1.png")
    target = link_folder(read_set([str(tmp_path / "b")], tmp_path), tmp_path / "images")
    assert {path.name: path.resolve().name for path in target.iterdir()} == {
        "00000_p1.png": "z1.png",
        "00001_p2.png": "p2.png",
    }
