"""Patches cut in advance: what they are, that a killed run goes on, and what keeps test images out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from jointiq.commands.prepare import main
from jointiq.data.image_sets import ImageSet, refuse_listed
from jointiq.data.images import pixel_hash, read_image, write_png
from jointiq.data.prepare import patch_cutting
from jointiq.data.prepare.patch_cutting import PatchSettings
from jointiq.data.prepare.patch_set import prepare
from jointiq.data.prepare.sources import difference_hash, look
from jointiq.data.prepared import LIST, PATCHES, open_patches, read_rows
from jointiq.errors import ConfigError, DataError, UserError

SETTINGS = PatchSettings(patches=24, side=16)


@pytest.fixture
def images(tmp_path: Path, picture: Callable[..., Any]) -> Path:
    """Three pictures, of which the smallest holds 4 places, and a copy of one in another folder."""
    folder = tmp_path / "images"
    for number, size in enumerate([(40, 50), (17, 17), (64, 33)]):
        write_png(folder / f"{number}.png", picture(*size, seed=number))
    write_png(folder / "more" / "again, 0.bmp.png", read_image(folder / "0.png"))
    return folder


def make(images: Path, output: Path, settings: PatchSettings = SETTINGS) -> np.ndarray:
    prepare([str(images)], output, settings)
    return np.array(open_patches(output))


def test_patches_are_squares_of_the_images_as_listed(images: Path, tmp_path: Path) -> None:
    patches = make(images, tmp_path / "out")
    assert patches.shape == (24, 16, 16, 3) and patches.dtype == np.uint8
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    files = {pixel_hash(read_image(path)): path for path in images.glob("*.png")}
    rows = read_rows(tmp_path / "out" / LIST)
    assert [row.number for row in rows] == list(range(24))
    for row, patch in zip(rows, patches, strict=True):
        image = read_image(files[manifest["images"][row.image]])
        assert np.array_equal(image[row.top : row.top + 16, row.left : row.left + 16], patch)
        assert row.side == 16 and row.sha256 == pixel_hash(patch)
    assert len({row.sha256 for row in rows}) == 24
    # The small one gives all it has, the others what is left in equal parts.
    assert sorted(sum(row.image == name for row in rows) for name in manifest["images"]) == [4, 10, 10]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"patches.npy", "patches.csv", "manifest.json"}


def test_copies_are_left_out_and_said_so(images: Path, tmp_path: Path) -> None:
    manifest = prepare([str(images)], tmp_path / "out", SETTINGS)
    ((path, reason),) = manifest["left_out"].items()
    assert {Path(path).name, Path(reason.split(" as ")[1]).name} == {"0.png", "again, 0.bmp.png"}


def test_patches_do_not_depend_on_names_or_places(images: Path, tmp_path: Path) -> None:
    first = make(images, tmp_path / "out")
    moved = tmp_path / "elsewhere"
    for number, path in enumerate(sorted(images.glob("*.png"), reverse=True)):
        moved.mkdir(exist_ok=True)
        shutil.copy(path, moved / f"x{number}.png")
    assert np.array_equal(make(moved, tmp_path / "out2"), first)
    assert not np.array_equal(make(images, tmp_path / "out3", PatchSettings(patches=24, side=16, seed=1)), first)


@pytest.mark.parametrize("kept", [0, 100, 5000, 10_000])
def test_a_killed_run_goes_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    whole = make(images, tmp_path / "whole")
    reads = []

    def read(path: Path) -> Any:
        reads.append(path)
        if len(reads) == 3:
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr(patch_cutting, "read_image", read)
    with pytest.raises(KeyboardInterrupt):
        make(images, tmp_path / "out")
    # What a crash leaves of the array beyond the listed patches is anything.
    work = tmp_path / "out.part"
    with (work / PATCHES).open("ab") as stream:
        stream.write(b"x" * kept)
    with (work / LIST).open("a") as stream:
        stream.write("14,00002_")
    assert np.array_equal(make(images, tmp_path / "out"), whole)
    assert len(reads) == 5, "of the three images the first is not cut again"
    assert (tmp_path / "out" / LIST).read_text() == (tmp_path / "whole" / LIST).read_text()
    assert not work.exists()


def test_what_was_begun_with_other_settings_is_begun_anew(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(patch_cutting, "_to_disk", lambda stream: (_ for _ in ()).throw(KeyboardInterrupt))
        make(images, tmp_path / "out", PatchSettings(patches=20, side=8))
    assert np.array_equal(make(images, tmp_path / "out"), make(images, tmp_path / "other"))


def test_the_same_command_again_does_nothing_and_another_is_refused(images: Path, tmp_path: Path) -> None:
    make(images, tmp_path / "out")
    before = (tmp_path / "out" / PATCHES).stat().st_mtime_ns
    make(images, tmp_path / "out")
    assert (tmp_path / "out" / PATCHES).stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="--output"):
        make(images, tmp_path / "out", PatchSettings(patches=23, side=16))


def test_fewer_patches_than_images(images: Path, tmp_path: Path) -> None:
    rows = make(images, tmp_path / "out", PatchSettings(patches=2, side=16))
    assert len(rows) == 2


def test_too_few_different_patches(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "flat.png", np.full((40, 40, 3), 9, np.uint8))
    with pytest.raises(DataError, match="hold 1 different patches; allowed: --patches 1"):
        make(tmp_path / "images", tmp_path / "out")


def test_scaling_down_shows_larger_squares(images: Path, tmp_path: Path) -> None:
    patches = make(images, tmp_path / "out", PatchSettings(patches=12, side=16, min_zoom=0.5))
    rows = read_rows(tmp_path / "out" / LIST)
    assert patches.shape == (12, 16, 16, 3) and max(row.side for row in rows) > 24


def test_images_that_cannot_be_used_are_named(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "broken.png").write_text("no image")
    write_png(images / "tiny.png", np.zeros((8, 30, 3), np.uint8))
    assert main([str(images), "--output", str(tmp_path / "out"), "--patches", "9", "--side", "16"]) == 0
    printed = capsys.readouterr().out
    assert "9 patches of 16x16, 3 images" in printed
    assert "broken.png is not an image" in printed and "30x8 pixels, smaller than a patch" in printed


def test_nothing_usable(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "tiny.png", np.zeros((8, 30, 3), np.uint8))
    with pytest.raises(DataError, match="none of the 1 images can be used"):
        make(tmp_path / "images", tmp_path / "out")


def test_near_duplicates_are_left_out_on_request(tmp_path: Path, picture: Callable[..., Any]) -> None:
    original, other = picture(96, 96, seed=0), picture(96, 96, seed=1)
    smaller = np.asarray(Image.fromarray(original).resize((80, 80), Image.Resampling.LANCZOS))
    for name, image in (("a", original), ("b", smaller), ("c", other)):
        write_png(tmp_path / "images" / f"{name}.png", image)
    assert bin(difference_hash(original) ^ difference_hash(smaller)).count("1") <= 6
    assert look(tmp_path / "images" / "a.png").fingerprint == difference_hash(original)
    exact = prepare([str(tmp_path / "images")], tmp_path / "exact", SETTINGS)
    near = PatchSettings(patches=24, side=16, near_duplicates=6)
    manifest = prepare([str(tmp_path / "images")], tmp_path / "near", near)
    assert len(exact["images"]) == 3 and len(manifest["images"]) == 2
    (reason,) = manifest["left_out"].values()
    assert reason.startswith("nearly the same as")


def test_a_small_disk_is_noticed_before_the_work(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"GB are needed .* fewer --patches"):
        make(images, tmp_path / "out")


def test_a_full_disk_is_one_line(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(patch_cutting, "_to_disk", full)
    with pytest.raises(UserError, match="No space left on device; what is there stays"):
        make(images, tmp_path / "out")


def test_another_process_that_makes_the_same_set_is_told(images: Path, tmp_path: Path) -> None:
    work = tmp_path / "out.part"
    work.mkdir()
    with FileLock(work / "lock"), pytest.raises(UserError, match="another process is writing"):
        make(images, tmp_path / "out")
    make(images, tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [
        PatchSettings(patches=0),
        PatchSettings(side=0),
        PatchSettings(seed=-1),
        PatchSettings(min_zoom=0),
        PatchSettings(min_zoom=1.5),
        PatchSettings(near_duplicates=40),
    ],
)
def test_wrong_settings(settings: PatchSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--"):
        prepare(["nowhere"], tmp_path / "out", settings)


def test_the_manifest_keeps_training_images_out_of_tests(images: Path, tmp_path: Path) -> None:
    make(images, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    path = images / "1.png"
    trained = ImageSet("test", (path,), (pixel_hash(read_image(path)),))
    with pytest.raises(DataError, match="1 of the 1 images of test are in the training set"):
        refuse_listed(trained, manifest)
    refuse_listed(ImageSet("test", (path,), ("0" * 64,)), manifest)


def test_the_hash_is_that_of_studies(images: Path, tmp_path: Path) -> None:
    from jointiq.data.image_sets import read_set

    known = read_set([str(images)], tmp_path).hashes
    assert sorted(known) == sorted(pixel_hash(read_image(path)) for path in images.rglob("*.png"))
