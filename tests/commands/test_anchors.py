"""``python -m src.anchors`` on small pictures."""

from __future__ import annotations

import csv
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from jointiq.commands.anchors import anchors
from jointiq.configs import CONFIGS
from jointiq.data.images import read_image, write_png
from jointiq.data.sample import sample_images
from jointiq.errors import ConfigError
from jointiq.evaluation import measuring
from jointiq.evaluation.codecs import run as anchor_run
from jointiq.evaluation.codecs.anchors import CODECS, code
from jointiq.evaluation.codecs.pillow import FAMILIES
from jointiq.evaluation.rd import read_rd

ROOT = Path(__file__).resolve().parents[2]


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("anchors", overrides=["workers=1", "settings.jpeg_420=[20,60]", "settings.jpeg_444=[20,60]",
                                             *overrides])  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    picture = read_image(sample_images("test")[0])
    for name, (height, width) in {"a/x.png": (33, 50), "b/x.png": (40, 41)}.items():
        write_png(tmp_path / "images" / name, picture[:height, :width])
    return tmp_path / "images"


def run(images: Path, *overrides: str) -> int:
    return anchors(config("codecs=[jpeg]", "data=folder", f"data.test_dir={images}",
                          f"output={images.parent / 'out'}", *overrides))  # fmt: skip


def test_files_rows_and_what_made_them(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(images) == 0
    shown = capsys.readouterr().out
    assert "mean over 2 images" in shown and shown.count("JPEG") == 4  # a line for each point
    out = images.parent / "out"
    assert sorted(path.name for path in out.glob("*.*")) == [".rows"] + [
        f"jpeg_{chroma}.{suffix}" for chroma in ("420", "444") for suffix in ("csv", "json")
    ]
    curve = read_rd(out / "jpeg_420.json")
    points = [[code(CODECS["jpeg_420"], read_image(images / n), q) for n in ("a/x.png", "b/x.png")] for q in (20, 60)]
    assert curve.bpp == pytest.approx([(a.bpp + b.bpp) / 2 for a, b in points])
    assert curve.results["psnr-rgb"] == pytest.approx([(a.psnr + b.psnr) / 2 for a, b in points])
    assert curve.parameter == (20, 60)
    assert [row["image"] for row in curve.images] == ["a/x.png", "b/x.png"] * 2
    assert curve.about["settings"] == [20, 60] and "Pillow" in curve.about["version"]
    assert "4:2:0" in curve.about["colour_space"] and "subsampling=2" in curve.about["command"]
    with (out / "jpeg_420.csv").open() as stream:
        assert [int(row["bytes"]) for row in csv.DictReader(stream)] == [p.bytes for point in points for p in point]


def test_a_repeated_run_codes_only_what_is_missing(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(images) == 0
    before = (images.parent / "out" / "jpeg_444.json").read_bytes()
    coded: list[tuple[str, float]] = []

    def counted(codec, image, setting):  # type: ignore[no-untyped-def]
        coded.append((codec.name, setting))
        return code(codec, image, setting)

    monkeypatch.setattr(anchor_run, "code", counted)
    assert run(images) == 0
    assert coded == []
    assert "taken from an earlier run: 8 of 8" in capsys.readouterr().out
    assert (images.parent / "out" / "jpeg_444.json").read_bytes() == before
    write_png(images / "a" / "x.png", read_image(images / "b" / "x.png")[:30])  # another picture of the same name
    assert run(images, "settings.jpeg_444=[20,61]") == 0
    assert sorted(coded) == [("jpeg_420", 20), ("jpeg_420", 60), ("jpeg_444", 20)] + [("jpeg_444", 61)] * 2


def test_decoded_pictures_are_kept_and_made_again_when_missing(images: Path) -> None:
    kept = images.parent / "pictures"
    assert run(images) == 0
    assert not kept.exists() and "picture" not in read_rd(images.parent / "out" / "jpeg_420.json").images[0]
    for _ in range(2):
        assert run(images, f"pictures={kept}") == 0
        row = read_rd(images.parent / "out" / "jpeg_420.json").images[2]  # quality 60 of a/x.png
        file = images.parent / "out" / row["picture"]
        expected = code(CODECS["jpeg_420"], read_image(images / "a" / "x.png"), 60).image
        assert np.array_equal(read_image(file), expected)
        assert len(list(kept.rglob("*.png"))) == 8
        file.unlink()


def test_damaged_rows_are_made_again(images: Path) -> None:
    assert run(images) == 0
    for file in (images.parent / "out" / ".rows").rglob("*.json"):
        file.write_text("[{")
    assert run(images) == 0
    assert all(json.loads(file.read_text()) for file in (images.parent / "out" / ".rows").rglob("*.json"))


def test_an_image_that_fails_is_told_and_no_curve_pretends(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "a" / "x.png").write_bytes(b"no picture")
    assert run(images) == 1
    told = capsys.readouterr().out
    assert "failed: jpeg_420 a/x.png:" in told and "failed: jpeg_444 a/x.png:" in told
    assert not list((images.parent / "out").glob("*.json"))


def test_absent_codecs_are_listed(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(images, "codecs=[vvenc]") == 0
    assert "absent: vvenc: vvencapp and vvdecapp not found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("codecs=[gif]", "codecs='gif'"),
        ("codecs=[]", "codecs="),
        ("output=null", "output=None"),
        ("pictures=3", "pictures=3"),
        ("workers=0", "workers=0"),
        ("settings.jpeg_420=[101]", "settings.jpeg_420=101 .* from 1 to 100"),
        ("settings.jpeg_420=[2.5]", "whole numbers"),
        ("settings.jpeg_420=[5,5]", "different numbers"),
        ("programs.bpgenc=3", "programs.bpgenc=3"),
    ],
)
def test_values_that_cannot_be_used(images: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(images, override)


def test_every_codec_has_its_settings_key() -> None:
    assert list(config().settings) == [name for names in FAMILIES.values() for name in names]


def test_two_processes(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked ones, which need not import anything."""
    monkeypatch.setattr(measuring, "get_context", lambda kind: multiprocessing.get_context("fork"))
    assert run(images, "workers=2", "settings.jpeg_420=[50]") == 0
    assert len(read_rd(images.parent / "out" / "jpeg_420.json").images) == 2


@pytest.mark.slow
def test_command_line_with_two_processes(images: Path) -> None:
    command = [sys.executable, "-m", "src.anchors", "codecs=[jpeg]", "data=folder", f"data.test_dir={images}",
               f"output={images.parent / 'out'}", "workers=2", "settings.jpeg_420=[50]"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_rd(images.parent / "out" / "jpeg_420.json").images) == 2
    assert subprocess.run([*command, "codecs=[gif]"], cwd=ROOT, capture_output=True).returncode == 2
