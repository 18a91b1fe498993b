"""Training on patches cut in advance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jointiq.data import build_data, split_images
from jointiq.data.images import write_png
from jointiq.data.prepare.patch_cutting import PatchSettings
from jointiq.data.prepare.patch_set import prepare
from jointiq.data.prepared import PreparedData, PreparedPatches, open_patches
from jointiq.errors import ConfigError, DataError

KEYS = {"batch_size": 4, "crop": 16, "min_zoom": 1.0, "flips": True, "num_workers": 0, "preload_mb": 0}


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Any]) -> Path:
    """12 patches of 16x16."""
    write_png(tmp_path / "images" / "a.png", picture(40, 50))
    prepare([str(tmp_path / "images")], tmp_path / "out", PatchSettings(patches=12, side=16))
    return tmp_path / "out"


def test_patches_are_those_of_the_folder(folder: Path) -> None:
    stored = {patch.tobytes() for patch in np.array(open_patches(folder)).transpose(0, 3, 1, 2)}
    data = PreparedPatches(folder, crop=16, min_zoom=1.0, flips=False, seed=0)
    seen = {data[number].numpy().tobytes() for number in range(100)}
    assert seen == stored
    assert data[0].dtype == torch.uint8 and data[0].shape == (3, 16, 16)


def test_flips_and_smaller_crops(folder: Path) -> None:
    flipped = PreparedPatches(folder, crop=16, min_zoom=1.0, flips=True, seed=0)
    assert len({flipped[number].numpy().tobytes() for number in range(200)}) > 24
    small = PreparedPatches(folder, crop=8, min_zoom=0.5, flips=False, seed=0)
    assert small[0].shape == (3, 8, 8)


def test_a_patch_depends_on_seed_and_number_only(folder: Path) -> None:
    one, other = (PreparedPatches(folder, crop=12, min_zoom=1.0, flips=True, seed=3) for _ in range(2))
    assert all(torch.equal(one[i], other[i]) for i in (5, 0, 5))
    different = PreparedPatches(folder, crop=12, min_zoom=1.0, flips=True, seed=4)
    assert not all(torch.equal(one[i], different[i]) for i in range(4))


def test_processes_and_continued_runs_share_the_batches_of_one(folder: Path, tmp_path: Path) -> None:
    settings = {"name": "prepared", "train_dir": str(folder), "val_dir": str(tmp_path / "images"), "pattern": "**/*"}
    data = build_data({**settings, **KEYS}, seed=0)
    data.setup("fit")
    whole = list(data.train_batches(steps=3))
    halves = [list(data.train_batches(3, first_step=1, rank=rank, world_size=2)) for rank in (0, 1)]
    assert whole[0].shape == (4, 3, 16, 16)
    for step, parts in enumerate(zip(*halves, strict=True), start=1):
        assert torch.equal(torch.cat(parts), whole[step])
    assert data.train_count == 12 and data.train_image(3).shape == (16, 16, 3)


def test_validation_images_are_a_folder(folder: Path, tmp_path: Path) -> None:
    data = {"name": "prepared", "train_dir": str(folder), "val_dir": str(tmp_path / "images"), "pattern": "**/*"}
    assert [path.name for path in split_images(data, "val")] == ["a.png"]
    for wrong in (None, [str(folder), str(folder)]):
        with pytest.raises(ConfigError, match=r"data\.train_dir=.* one folder, .*src\.prepare"):
            build_data({**data, **KEYS, "train_dir": wrong}, seed=0)


def test_unusable_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"16x16 pixels, smaller than data\.crop=32; .*--side 32"):
        PreparedPatches(folder, crop=32, min_zoom=1.0, flips=False, seed=0)
    with pytest.raises(DataError, match="no prepared patches"):
        open_patches(tmp_path / "images")
    whole = (folder / "patches.npy").read_bytes()
    (folder / "patches.npy").write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"patches\.npy cannot be read"):
        open_patches(folder)
    np.save(folder / "patches.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match="uint8"):
        open_patches(folder)


def test_what_is_trained_on_is_known_by_the_patches(folder: Path, tmp_path: Path) -> None:
    def identity(train: Path) -> bytes:
        return PreparedData(train, [], batch_size=4, crop=16).train_identity()

    images = str(tmp_path / "images")
    prepare([images], tmp_path / "again", PatchSettings(patches=12, side=16))
    prepare([images], tmp_path / "seed", PatchSettings(patches=12, side=16, seed=1))
    assert identity(folder) == identity(tmp_path / "again") != identity(tmp_path / "seed")
    (folder / "patches.csv").unlink()
    with pytest.raises(DataError, match=r"patches\.csv cannot be read"):
        identity(folder)
