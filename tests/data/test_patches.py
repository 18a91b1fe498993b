"""Patches: what they show, and that they depend on the seed and their number alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from jointiq.data import build_data, split_images
from jointiq.data.images import write_png
from jointiq.data.patches import RandomPatches, StepSampler, WholeImages
from jointiq.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images whose red and green are the position of each pixel, and whose blue is 1 and 2."""
    for number, (height, width) in enumerate(((40, 60), (50, 33)), start=1):
        rows, columns = np.mgrid[:height, :width]
        write_png(tmp_path / f"{number}.png", np.stack([rows, columns, np.full_like(rows, number)], 2).astype(np.uint8))
    return tmp_path


def patches(folder: Path, **changes: object) -> RandomPatches:
    arguments = {"crop": 32, "min_zoom": 1.0, "flips": False, "seed": 0, "preload_mb": 0, **changes}
    return RandomPatches(sorted(folder.glob("*.png")), **arguments)


def test_crops_are_cut_from_anywhere(folder: Path) -> None:
    data = patches(folder)
    corners = set()
    for number in range(60):
        patch = data[number].int()
        assert patch.shape == (3, 32, 32)
        assert torch.equal(patch[0] - patch[0, 0, 0], torch.arange(32)[:, None].expand(32, 32).int())
        assert torch.equal(patch[1] - patch[1, 0, 0], torch.arange(32).expand(32, 32).int())
        corners.add((patch[2, 0, 0].item(), patch[0, 0, 0].item(), patch[1, 0, 0].item()))
    assert {corner[0] for corner in corners} == {1, 2}
    assert len(corners) > 30


def test_flips(folder: Path) -> None:
    data = patches(folder, flips=True)
    orders = {tuple((patch[:2, 0, 0] < patch[:2, -1, -1]).tolist()) for patch in (data[i] for i in range(40))}
    assert len(orders) == 4


def test_zoom_shows_a_larger_area(folder: Path) -> None:
    data = patches(folder, min_zoom=0.5)
    spans = [int(rows.max()) - int(rows.min()) for rows in (data[number][0] for number in range(40))]
    # The first image allows areas of up to 40 pixels, the second of up to 33.
    assert max(spans) > 36 and min(spans) >= 30


def test_a_patch_depends_on_seed_and_number_only(folder: Path) -> None:
    one, other = patches(folder, flips=True, min_zoom=0.5), patches(folder, flips=True, min_zoom=0.5, preload_mb=1)
    assert one.reads_files and not other.reads_files
    assert all(torch.equal(one[i], other[i]) for i in (5, 0, 5))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], patches(folder, flips=True, min_zoom=0.5, seed=1)[0])


def test_images_smaller_than_the_crop(folder: Path) -> None:
    with pytest.raises(DataError, match=r"2\.png is 33x50 pixels, smaller than data\.crop=36"):
        patches(folder, crop=36)


def test_whole_images(folder: Path) -> None:
    data = WholeImages(sorted(folder.glob("*.png")))
    assert [tuple(data[i].shape) for i in range(len(data))] == [(3, 40, 60), (3, 50, 33)]


def test_processes_share_the_batches_of_one() -> None:
    whole = list(StepSampler(4, steps=3))
    assert whole == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    halves = [list(StepSampler(4, steps=3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_a_continued_run_takes_up_where_it_stopped() -> None:
    sampler = StepSampler(4, steps=3, first_step=2)
    assert list(sampler) == [[8, 9, 10, 11]]
    assert len(sampler) == 3


def test_sample_splits_are_disjoint_and_readable() -> None:
    splits = {split: split_images({"name": "sample"}, split) for split in ("train", "val", "test")}
    assert {path.stem for path in splits["test"]} == {"coffee", "chelsea", "flower"}
    assert [path.stem for path in splits["val"]] == ["rocket"]
    names = [path.name for paths in splits.values() for path in paths]
    assert len(names) == len(set(names)) == 11
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= {path.name for path in splits["train"]}
    assert all(min(WholeImages(paths)[0].shape[1:]) > 256 for paths in splits.values())


def test_folders_have_to_be_given(folder: Path) -> None:
    settings = {"name": "folder", "train_dir": str(folder), "val_dir": None, "pattern": "**/*"}
    assert len(split_images(settings, "train")) == 2
    with pytest.raises(ConfigError, match=r"data\.val_dir=None"):
        split_images(settings, "val")


@pytest.mark.parametrize("made", [list, OmegaConf.create])
def test_several_folders_are_one_set(folder: Path, made: Callable[[list[str]], Any]) -> None:
    places = {name: str(folder / name) for name in ("a", "b", "empty", "none")}
    for name, images in (("a", ["1.png"]), ("b", ["1.png", "2.png"]), ("empty", [])):
        (folder / name).mkdir()
        for image in images:
            shutil.copy(folder / image, folder / name)
    settings = {"name": "folder", "pattern": "**/*"}
    both = {**settings, "train_dir": made([places["b"], places["a"], places["b"]])}
    expected = ["b/1.png", "b/2.png", "a/1.png"]  # in the order given, and no file twice
    assert split_images(both, "train") == [folder / name for name in expected]
    for wrong, message in (("none", "no such folder"), ("empty", "0 images match")):
        with pytest.raises(DataError, match=rf"^data.test_dir: {places[wrong]}: {message}"):
            split_images({**settings, "test_dir": made([places["a"], places[wrong]])}, "test")
    with pytest.raises(ConfigError, match=r"data\.val_dir=\[\] "):
        split_images({**settings, "val_dir": made([])}, "val")


def test_unreadable_validation_images_are_found_at_once(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "val"
    broken.mkdir()
    (broken / "x.png").write_text("no image")
    settings = {"name": "folder", "train_dir": str(folder), "val_dir": str(broken), "pattern": "*", "batch_size": 1}
    data = build_data({**settings, "crop": 32, "min_zoom": 1, "flips": True, "num_workers": 0, "preload_mb": 0}, seed=0)
    with pytest.raises(DataError, match=r"x\.png is not an image"):
        data.setup("fit")
