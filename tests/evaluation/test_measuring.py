"""One store for the rows of models and codecs, by content."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jointiq.data.images import read_image, write_png
from jointiq.errors import ConfigError
from jointiq.evaluation import measuring
from jointiq.evaluation.codecs.anchors import CODECS
from jointiq.evaluation.codecs.run import CodecMaker
from jointiq.evaluation.measuring import Measured, measure, worker_count
from jointiq.evaluation.models import ModelMaker
from jointiq.evaluation.pictures import PictureFolder
from jointiq.models import build_model
from tests.marks import slow


@dataclass(frozen=True)
class Darker:
    """A codec that takes ``step`` levels away; ``coded`` lists what it was given."""

    step: int
    coded: list[str]

    @property
    def name(self) -> str:
        return f"darker_{self.step}"

    @property
    def labels(self) -> dict[str, Any]:
        return {"codec": "darker"}

    def identity(self) -> dict[str, Any]:
        return {"codec": "darker", "step": self.step}

    def measure(self, name: str, image: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        self.coded.append(name)
        if image.max() == 0:
            raise RuntimeError("too\ndark")
        row = {"codec": "darker", "image": name, "bpp": float(image.mean()), "latents_equal": self.step < 9}
        return row, image - np.minimum(image, self.step)


@pytest.fixture
def images(tmp_path: Path, picture: Callable[..., np.ndarray]) -> dict[str, Path]:
    """``a`` and ``b`` differ, ``copy`` is ``a`` in another format."""
    for name, seed in (("a.png", 0), ("b.png", 1), ("copy.bmp", 0)):
        (tmp_path / "images").mkdir(exist_ok=True)
        if name.endswith("bmp"):
            from PIL import Image

            Image.fromarray(picture(20, 30, seed)).save(tmp_path / "images" / name)
        else:
            write_png(tmp_path / "images" / name, picture(20, 30, seed))
    return {path.name: path for path in sorted((tmp_path / "images").iterdir())}


def rows(measured: list[Measured]) -> list[Any]:
    return [one.row for one in measured]


def test_rows_follow_the_pixels_and_what_makes_them(tmp_path: Path, images: dict[str, Path]) -> None:
    maker = Darker(1, [])
    (first,) = measure([maker], [("a.png", images["a.png"]), ("b.png", images["b.png"])], tmp_path / "rows")
    assert maker.coded == ["a.png", "b.png"] and not any(one.reused for one in first)
    # Another name, order and file format, the same picture twice.
    again = [("y.png", images["b.png"]), ("x.png", images["a.png"]), ("copy.bmp", images["copy.bmp"])]
    (second,) = measure([maker], again, tmp_path / "rows")
    assert len(maker.coded) == 2 and all(one.reused for one in second)
    a, b = rows(first)
    assert rows(second) == [{**b, "image": "y.png"}, {**a, "image": "x.png"}, {**a, "image": "copy.bmp"}]
    other = Darker(2, [])
    measure([other], again[:1], tmp_path / "rows")
    assert other.coded == ["y.png"]
    measure([maker], again, cache=None)
    assert len(maker.coded) == 5


def test_what_fails_is_named_and_the_rest_goes_on(tmp_path: Path, images: dict[str, Path]) -> None:
    write_png(tmp_path / "black.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "none.png").write_bytes(b"no image")
    named = [("black.png", tmp_path / "black.png"), ("none.png", tmp_path / "none.png"), ("a.png", images["a.png"])]
    seen: list[Measured] = []
    makers = [Darker(1, []), Darker(2, [])]
    measured = measure(makers, named, tmp_path / "rows", advance=seen.append)
    for of_maker in measured:
        black, none, a = of_maker
        assert (black.row, black.problem) == (None, "too dark")
        assert none.problem is not None and "not an image" in none.problem
        assert a.row is not None and a.problem is None
    assert len(seen) == 6 and makers[0].coded == ["black.png", "a.png"]


def test_rows_of_lost_latents_and_damaged_rows_are_measured_again(tmp_path: Path, images: dict[str, Path]) -> None:
    astray = Darker(9, [])
    for _ in range(2):
        measure([astray], [("a.png", images["a.png"])], tmp_path / "rows")
    assert len(astray.coded) == 2 and not (tmp_path / "rows").exists()
    maker = Darker(1, [])
    measure([maker], [("a.png", images["a.png"])], tmp_path / "rows")
    (file,) = (tmp_path / "rows").iterdir()
    whole = file.read_text()
    for damaged in (whole[:9], "[]", "3"):
        file.write_text(damaged)
        measure([maker], [("a.png", images["a.png"])], tmp_path / "rows")
        assert json.loads(file.read_text()) == json.loads(whole)
    assert len(maker.coded) == 4


def test_a_row_goes_with_the_picture_that_it_measured(tmp_path: Path, images: dict[str, Path]) -> None:
    """Also where a file of the same name has held another image meanwhile."""
    keep = PictureFolder(tmp_path / "pictures", tmp_path)
    at, maker = tmp_path / "x.png", Darker(1, [])
    originals = [read_image(images[name]) for name in ("a.png", "b.png", "a.png")]
    for original in originals:
        write_png(at, original)
        ((one,),) = measure([maker], [("x.png", at)], tmp_path / "rows", pictures=keep)
        assert one.row is not None
        decoded = read_image(tmp_path / one.row["picture"])
        assert np.array_equal(decoded, original - np.minimum(original, 1))
    assert len(maker.coded) == 2


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_models_and_codecs_share_a_store(tmp_path: Path, images: dict[str, Path], workers: int) -> None:
    torch.manual_seed(0)
    model = build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": None})
    torch.save(model.state_dict(), tmp_path / "model.pth.tar")
    makers: list[Any] = [ModelMaker(str(tmp_path / "model.pth.tar"), "cpu", "ours"), CodecMaker(CODECS["jpeg_444"], 40)]
    named = [(name, images[name]) for name in ("a.png", "b.png")]
    first = measure(makers, named, tmp_path / "rows", workers=workers)
    assert len(list((tmp_path / "rows").iterdir())) == 4
    (tmp_path / "model.pth.tar").rename(tmp_path / "renamed.pth.tar")
    makers[0] = ModelMaker(str(tmp_path / "renamed.pth.tar"), "cpu", "renamed")
    second = measure(makers, named, tmp_path / "rows")
    assert all(one.reused for of_maker in second for one in of_maker)
    assert [row["checkpoint"] for row in rows(second[0])] == ["renamed"] * 2
    assert [{**row, "checkpoint": "ours"} for row in rows(second[0])] == rows(first[0]) and rows(second[1]) == rows(
        first[1]
    )
    assert [row["setting"] for row in rows(second[1])] == [40, 40]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "two"])
def test_numbers_of_workers(value: object) -> None:
    assert worker_count(3) == 3 and worker_count(None) >= 1
    with pytest.raises(ConfigError, match="workers"):
        worker_count(value)


@dataclass(frozen=True)
class SaysWhere:
    """Writes into a row in which process and on which GPU it was made."""

    device: str
    name: str = "says_where"
    labels: Any = None

    def identity(self) -> dict[str, Any]:
        return {}

    def measure(self, name: str, image: np.ndarray) -> tuple[dict[str, Any], None]:
        time.sleep(1)  # so that no process does the work of all
        return {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "process": os.getpid()}, None


@pytest.mark.parametrize("start", ["fork", slow("spawn")])
@pytest.mark.parametrize(("device", "dealt"), [("cuda", ["2", "5", "5"]), ("cuda:1", ["5,2"] * 3)])
def test_processes_deal_out_the_gpus(
    images: dict[str, Path], monkeypatch: pytest.MonkeyPatch, device: str, dealt: list[str], start: str
) -> None:
    """Forked processes need not import anything."""
    monkeypatch.setattr(measuring, "get_context", lambda kind: get_context(start))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,2")
    named = [(f"{number}.png", images["a.png"]) for number in range(6)]
    (measured,) = measure([SaysWhere(device)], named, workers=3)
    gpus = {row["process"]: row["gpu"] for row in rows(measured)}
    assert sorted(gpus.values()) == dealt
    assert all(row["gpu"] == gpus[row["process"]] for row in rows(measured))
