"""Decoded pictures are kept whole and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jointiq.data.images import read_image
from jointiq.evaluation.pictures import PictureFolder, picture_path


def test_a_kept_picture_is_found_from_its_row(tmp_path: Path, picture: Any) -> None:
    folder = PictureFolder(tmp_path / "pictures", tmp_path / "results" / "study")
    image = picture(20, 30)
    row = {"picture": folder.keep(image, "runs/a/last.ckpt", "kodim01.png")}
    assert row["picture"].startswith("../../pictures/") and row["picture"].endswith("/kodim01.png")
    file = picture_path(tmp_path / "results" / "study" / "ours.json", row)
    assert file is not None and np.array_equal(read_image(file), image)
    assert file.resolve() == folder.path("runs/a/last.ckpt", "kodim01.png")
    assert picture_path(tmp_path / "x.json", {"picture": None}) is None


def test_different_names_are_different_files(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path, tmp_path)
    names = ["a/x.png", "a_x.png", "a x.png", "x.png", "x.jpg", "x" * 300, "y" + "x" * 300, "..", "ä.png", "ö.png"]
    files = {folder.path(maker, name) for name in names for maker in ("runs/a.ckpt", "runs_a.ckpt")}
    assert len(files) == 2 * len(names)
    assert all(file.parent.parent == tmp_path and len(file.name) < 120 for file in files)


def test_long_names_keep_whole_words(tmp_path: Path) -> None:
    kept = PictureFolder(tmp_path, tmp_path)
    maker = "results/runs/jointiq-enhancer=mine/lmbda0.06_seed0_6cc60425/checkpoints/last.ckpt" + "/x" * 9
    assert kept.path(maker, "a.png").parent.name.startswith("mine_lmbda0.06_seed0")
