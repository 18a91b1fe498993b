"""Latents of the training images: what they are of, and how crops of them are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jointiq.data.datamodule import ImageData
from jointiq.data.images import write_png
from jointiq.data.latents import LatentData, RandomCrops, random_version
from jointiq.data.prepare.patch_cutting import PatchSettings
from jointiq.data.prepare.patch_set import prepare
from jointiq.data.prepared import PreparedData
from jointiq.models import build_model

CONFIG: dict[str, Any] = {"name": "jointiq", "N": 4, "M": 4, "G": 1, "global_context": False, "mprm": False}


@pytest.fixture
def files(tmp_path: Path, picture: Any) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for index, (path, size) in enumerate(zip(paths, [(64, 96), (80, 64)], strict=True)):
        write_png(path, picture(*size, seed=index))
    return paths


def data(files: list[Path], copies: int = 2, **options: Any) -> LatentData:
    images = ImageData(files, [], **{"batch_size": 2, "crop": 32, "min_zoom": 1.0, "flips": False, **options})
    images.setup("fit")
    torch.manual_seed(0)
    return LatentData(images, build_model(CONFIG).eval(), copies)


def test_latents_are_those_of_the_whole_images_unrounded(files: list[Path], picture: Any) -> None:
    cached = data(files)
    latents = cached.latents()
    assert [[tuple(y.shape) for y in versions] for versions in latents] == [[(4, 4, 6)] * 2, [(4, 5, 4)] * 2]
    x = torch.from_numpy(picture(80, 64, seed=1)).permute(2, 0, 1)[None].float() / 255
    expected = cached.net.analyse(x)["y"][0]
    torch.testing.assert_close(latents[1][0], expected)
    assert not expected.equal(expected.round()) and not latents[1][0].requires_grad


def test_versions_differ_in_zoom_and_are_those_of_every_seed(files: list[Path]) -> None:
    first, again = (data(files, 4, min_zoom=0.5, flips=True, seed=seed).latents() for seed in (0, 1))
    flat = [[y for versions in latents for y in versions] for latents in (first, again)]
    assert all(map(torch.equal, *flat))
    assert len({tuple(y.shape) for y in first[0]}) > 1
    assert min(side for y in flat[0] for side in y.shape[1:]) >= 2


def test_crops_are_parts_of_all_images_and_versions_and_repeat_with_their_number() -> None:
    latents = [[torch.arange(20.0).view(1, 4, 5) + 100 * (2 * i + v) for v in range(2)] for i in range(3)]
    crops = RandomCrops(latents, side=2, seed=0)
    drawn = [crops[number] for number in range(200)]
    assert all(crop.equal(crops[number]) for number, crop in enumerate(drawn))
    corners = {int(crop[0, 0, 0]) for crop in drawn}
    assert {corner // 100 for corner in corners} == set(range(6))
    assert {corner % 100 for corner in corners} == {5 * row + column for row in range(3) for column in range(4)}
    assert all(crop.sub(crop[0, 0, 0]).equal(torch.tensor([[[0.0, 1.0], [5.0, 6.0]]])) for crop in drawn)
    assert not all(map(torch.equal, drawn, (RandomCrops(latents, 2, seed=1)[number] for number in range(200))))


def test_no_version_is_smaller_than_a_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    sizes = {random_version(image, 32, 0.1, True, np.random.default_rng(seed)).shape for seed in range(20)}
    assert min(min(size[:2]) for size in sizes) == 32 and len(sizes) > 1


def test_flips_are_drawn_independently() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    flipped = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    drawn = [random_version(image, 2, 1.0, True, np.random.default_rng(seed)) for seed in range(40)]
    counts = [sum(np.array_equal(version, candidate) for version in drawn) for candidate in flipped]
    assert sum(counts) == 40 and min(counts) > 3
    assert np.array_equal(random_version(image, 2, 1.0, False, np.random.default_rng(0)), image)


def test_latents_are_kept_for_the_same_g_a_and_images_only(
    files: list[Path], tmp_path: Path, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached(**options: Any) -> LatentData:
        made = data(files, **options)
        made.cache = tmp_path / "latents"
        return made

    first = cached().latents()
    again = cached(seed=3)
    monkeypatch.setattr(again, "_compute", lambda: pytest.fail("computed again"))
    assert all(map(torch.equal, first[0], again.latents()[0]))
    other = cached()
    with torch.no_grad():
        other.net.g_a.convs[0].bias[0] += 1
    assert not first[0][0].equal(other.latents()[0][0])
    for path in (tmp_path / "latents").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert first[0][0].equal(cached().latents()[0][0])
    write_png(files[0], picture(64, 96, seed=5))
    assert not first[0][0].equal(cached().latents()[0][0])
    assert cached(flips=True)._digest() != cached()._digest()


def test_latents_of_prepared_patches_are_those_of_their_folder(files: list[Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_model(CONFIG).eval()
    digests = []
    for number, path in enumerate(files):
        folder = tmp_path / f"patches{number}"
        (tmp_path / f"images{number}").mkdir()
        path.rename(tmp_path / f"images{number}" / path.name)
        prepare([str(tmp_path / f"images{number}")], folder, PatchSettings(patches=2, side=32))
        digests.append(LatentData(PreparedData(folder, [], batch_size=2, crop=32), net, 1)._digest())
    assert digests[0] != digests[1]
