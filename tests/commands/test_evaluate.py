"""``python -m src.evaluate`` with a small untrained model on images of odd sizes."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import jointiq
from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.coding.load import load_model
from jointiq.commands.evaluate import _checkpoints, evaluate
from jointiq.configs import CONFIGS
from jointiq.data.images import read_image, write_png
from jointiq.data.sample import sample_images
from jointiq.errors import ConfigError, DataError, UserError
from jointiq.evaluation import models
from jointiq.evaluation.metrics import psnr
from jointiq.evaluation.rd import read_rd
from jointiq.models import build_model
from jointiq.runs.folder import describe
from jointiq.runs.job_notes import note_job
from tests.training import tiny

SIZES = {"a.png": (33, 50), "b.png": (161, 170)}


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("evaluate", overrides=list(overrides))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints and two pictures."""
    folder = tmp_path_factory.mktemp("evaluate")
    picture = read_image(sample_images("test")[0])
    for name, (height, width) in SIZES.items():
        write_png(folder / "images" / name, picture[:height, :width])
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": None})
        weights = {f"net.{name}": value for name, value in model.state_dict().items()}
        torch.save({"model_config": model.config, "state_dict": weights}, folder / f"{seed}.ckpt")
    return folder


def test_points_and_rows_come_from_real_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = [str(folder / "0.ckpt"), str(folder / "1.ckpt")]
    output = folder / "out" / "ours.json"
    cfg = config(f"checkpoint=[{','.join(checkpoints)}]", f"output={output}", "device=cpu", "name=tiny",
                 "data=folder", f"data.test_dir={folder / 'images'}")  # fmt: skip
    assert evaluate(cfg) == 0
    curve = read_rd(output)
    assert curve.name == "tiny"
    assert sorted(curve.parameter) == checkpoints and list(curve.bpp) == sorted(curve.bpp)
    with output.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(curve.images) == 4

    row = next(row for row in curve.images if row["image"] == "a.png" and row["checkpoint"] == checkpoints[0])
    model, image = load_model(checkpoints[0]), read_image(folder / "images" / "a.png")
    encoded = encode_image(model, image)
    decoded = decode_image(model, encoded.data)
    assert (row["height"], row["width"]) == SIZES["a.png"]
    assert row["bytes"] == len(encoded.data)
    assert row["bpp"] == pytest.approx(8 * len(encoded.data) / (33 * 50))
    assert row["bpp_payload"] == pytest.approx(8 * encoded.payload_bytes / (33 * 50))
    assert row["bpp_estimate"] == pytest.approx(sum(encoded.estimated_bits.values()) / (33 * 50))
    assert row["bpp_y"] + row["bpp_z"] == pytest.approx(row["bpp_estimate"])
    assert row["psnr"] == psnr(image, decoded.image)
    assert row["psnr_mid"] == psnr(image, decoded.x_mid)
    assert row["ms_ssim"] is None and row["latents_equal"] is True
    assert curve.images[1]["ms_ssim"] is not None  # b.png is large enough

    means = {path: np.mean([r["psnr"] for r in curve.images if r["checkpoint"] == path]) for path in checkpoints}
    assert curve.results["psnr-rgb"] == pytest.approx([means[path] for path in curve.parameter])
    out = capsys.readouterr().out
    assert str(output) in out and "tiny: mean over 2 images" in out


def test_a_decoder_that_misses_the_latents_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(model: object, data: bytes) -> object:
        decoded = decode_image(model, data)
        return dataclasses.replace(decoded, latents={**decoded.latents, "y": decoded.latents["y"] + 1})

    monkeypatch.setattr(models, "decode_image", wrong)
    cfg = config(f"checkpoint={folder / '0.ckpt'}", f"output={folder / 'wrong.json'}", "device=cpu",
                 "data=folder", f"data.test_dir={folder / 'images'}", "data.pattern=a.png")  # fmt: skip
    assert evaluate(cfg) == 1
    assert "did not arrive at the encoder's latents" in capsys.readouterr().out
    assert read_rd(folder / "wrong.json").images[0]["latents_equal"] is False


def test_runs_sweeps_and_patterns_stand_for_their_checkpoints(folder: Path, tmp_path: Path) -> None:
    for number, (experiment, lmbda) in enumerate((("jointiq", 0.5), ("jointiq", 0.06), ("ablation_no_grdn", 0.5))):
        run = tmp_path / "runs" / f"{number}"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").write_bytes((folder / f"{number % 2}.ckpt").read_bytes())
        describe(run, tiny.config(f"+experiment={experiment}", f"lmbda={lmbda}"))
        note_job(tmp_path / "sweep", number, (), run, 0)
    ones = [str(tmp_path / "runs" / name / "checkpoints" / "last.ckpt") for name in "012"]
    both = {"jointiq": ones[:2], "ablation_no_grdn": ones[2:]}
    runs = str(tmp_path / "runs")
    assert _checkpoints(f"{runs}/0") == {"jointiq": ones[:1]}
    assert _checkpoints(runs) == _checkpoints(f"{runs}/*") == _checkpoints(str(tmp_path / "sweep")) == both
    assert _checkpoints([f"{runs}/1", f"{runs}/1/checkpoints/*.ckpt"]) == {"": ones[1:2], "jointiq": ones[1:2]}
    for wrong in (f"{runs}/9*", str(folder / "images")):
        with pytest.raises(ConfigError, match="checkpoint="):
            _checkpoints(wrong)

    test = ("data=folder", f"data.test_dir={folder / 'images'}", "data.pattern=a.png", "device=cpu", "complexity=none")
    assert evaluate(config(f"checkpoint={runs}/0", f"output={tmp_path / 'one.json'}", *test)) == 0
    assert evaluate(config(f"checkpoint={tmp_path / 'sweep'}", f"output={tmp_path / 'all.json'}", *test)) == 0
    written = {path.stem: read_rd(path) for path in tmp_path.glob("*.json")}
    assert {stem: len(curve) for stem, curve in written.items()} == {
        "one": 1,
        "all_jointiq": 2,
        "all_ablation_no_grdn": 1,
    }
    assert {curve.name for curve in written.values()} == {"one", "jointiq", "ablation_no_grdn"}


def test_runs_that_differ_in_the_seed_only_are_averaged(folder: Path, tmp_path: Path) -> None:
    """As a sweep's own curves are; what a model costs is the same for all seeds."""
    for number, (lmbda, seed) in enumerate(((0.5, 0), (0.5, 1), (0.06, 1))):
        run = tmp_path / "runs" / f"{number}"
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").write_bytes((folder / f"{number % 2}.ckpt").read_bytes())
        describe(run, tiny.config("+experiment=jointiq", f"lmbda={lmbda}", f"seed={seed}"))
    test = ("data=folder", f"data.test_dir={folder / 'images'}", "data.pattern=a.png", "device=cpu", "complexity=count")
    output = tmp_path / "out" / "ours.json"
    assert evaluate(config(f"checkpoint={tmp_path / 'runs'}", f"output={output}", *test)) == 0
    assert [path.name for path in output.parent.glob("*.json")] == ["ours.json"]
    curve = read_rd(output)
    rows = {(row["lmbda"], row["seed"]): row for row in curve.images}
    assert sorted(rows) == [(0.06, 1), (0.5, 0), (0.5, 1)] and sorted(curve.parameter) == ["0.06", "0.5"]
    at = curve.parameter.index("0.5")
    psnr_rgb = curve.results["psnr-rgb"]
    assert psnr_rgb[at] == pytest.approx((rows[0.5, 0]["psnr"] + rows[0.5, 1]["psnr"]) / 2)
    assert psnr_rgb[1 - at] == rows[0.06, 1]["psnr"]
    (spread,) = curve.about["spread"]
    assert (spread["lmbda"], spread["seeds"]) == (0.5, 2) and spread["psnr-rgb"] > 0
    assert set(curve.about["complexity"]) == {"0.06", "0.5"} and len(set(curve.results["parameters"])) == 1


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["output=o.json"], ConfigError, "checkpoint=None"),
        (["checkpoint=[]", "output=o.json"], ConfigError, r"checkpoint=\[\]"),
        (["checkpoint=none.ckpt", "output=o.json"], ConfigError, "checkpoint='none.ckpt' .* a file that exists"),
        (["checkpoint=[{ckpt},{ckpt}]", "output=o.json"], ConfigError, "different ones"),
        (["checkpoint={ckpt}"], ConfigError, "output=None"),
        (["checkpoint={ckpt}", "output=o.txt"], ConfigError, "output='o.txt'.*json"),
        (["checkpoint={ckpt}", "output={ckpt}/o.json"], ConfigError, "folder that can be written"),
        (["checkpoint={ckpt}", "output=o.json", "threads=0"], ConfigError, "threads=0"),
        (["checkpoint={ckpt}", "output=o.json", "threads=two"], ConfigError, "threads='two'"),
        (["checkpoint={ckpt}", "output=o.json", "device=tpu"], ConfigError, "device='tpu'.*auto, cpu"),
        (["checkpoint={ckpt}", "output=o.json", "device=cuda:99"], ConfigError, "device='cuda:99'"),
        (["checkpoint={ckpt}", "output=o.json", "data=folder"], ConfigError, "data.test_dir=None"),
        (["checkpoint={ckpt}", "output=o.json", "data=folder", "data.test_dir=none"], DataError, "no such folder"),
        (["checkpoint={image}", "output=o.json"], UserError, "is not a checkpoint"),
    ],
)
def test_user_errors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], error: type, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"{ckpt}": str(folder / "0.ckpt"), "{image}": str(folder / "images" / "a.png")}
    for place, path in places.items():
        overrides = [override.replace(place, path) for override in overrides]
    with pytest.raises(error, match=message):
        evaluate(config(*overrides))
    assert list(tmp_path.iterdir()) == []


def test_as_typed_a_user_error_is_one_line_and_exit_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "src.evaluate", "checkpoint=none.ckpt", f"output={tmp_path / 'o.json'}"]
    done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: checkpoint='none.ckpt' is not allowed; allowed: a file that exists"
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_all_rates_is_a_curve(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": None, "rates": "continuous"})
    weights = {f"net.{name}": value for name, value in model.state_dict().items()}
    checkpoint, output = folder / "rates.ckpt", folder / "rates" / "ours.json"
    torch.save({"model_config": model.config, "state_dict": weights}, checkpoint)
    images = ("data=folder", f"data.test_dir={folder / 'images'}", "device=cpu", f"output={output}")
    assert evaluate(config(f"checkpoint={checkpoint}", "quality=[1,50,99.5]", *images)) == 0
    curve = read_rd(output)
    assert len(curve) == 3 and sorted({row["quality"] for row in curve.images}) == [1, 50, 99.5]
    assert {name.rpartition(" ")[2] for name in curve.parameter} == {"q1", "q50", "q99.5"}
    assert len(curve.results["parameters"]) == 3
    row = next(row for row in curve.images if row["quality"] == 99.5 and row["image"] == "a.png")
    data = encode_image(load_model(checkpoint).at(99.5), read_image(folder / "images" / "a.png")).data
    assert row["bytes"] == len(data)
    capsys.readouterr()
    assert evaluate(config(f"checkpoint={checkpoint}", "quality=50", *images)) == 0
    assert "taken from an earlier run: 2 of 2 images" in capsys.readouterr().out
    for quality in ("[]", "[1,1]", "0", "[50,101]", "high"):
        with pytest.raises(ConfigError, match="quality"):
            evaluate(config(f"checkpoint={checkpoint}", f"quality={quality}", *images))
    with pytest.raises(ConfigError, match="one rate"):
        evaluate(config(f"checkpoint={folder / '0.ckpt'}", "quality=50", *images))


def test_refined_latents(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A point of its own, which an earlier one without refinement is not taken for."""
    state = torch.load(folder / "0.ckpt", weights_only=True)
    checkpoint, output = folder / "lambda.ckpt", folder / "refined" / "ours.json"
    torch.save({**state, "lmbda": 0.5}, checkpoint)
    images = ("data=folder", f"data.test_dir={folder / 'images'}", "device=cpu", f"output={output}")
    assert evaluate(config(f"checkpoint={checkpoint}", *images)) == 0
    plain = {row["image"]: row for row in read_rd(output).images}
    assert evaluate(config(f"checkpoint={checkpoint}", "refine=3", *images)) == 0
    assert "taken from an earlier run" not in capsys.readouterr().out
    refined = {row["image"]: row for row in read_rd(output).images}
    data = jointiq.encode(load_model(checkpoint), read_image(folder / "images" / "a.png"), refine=3)
    assert refined["a.png"]["bytes"] == len(data) and refined["a.png"]["refine"] == 3
    assert refined["a.png"]["encoding_time"] > plain["a.png"]["encoding_time"]
    assert all(row["latents_equal"] for row in refined.values())
    assert evaluate(config(f"checkpoint={checkpoint}", "refine=3", *images)) == 0
    assert "taken from an earlier run: 2 of 2 images" in capsys.readouterr().out
    for steps in ("-1", "2.5", "many", "null"):
        with pytest.raises(ConfigError, match="refine"):
            evaluate(config(f"checkpoint={checkpoint}", f"refine={steps}", *images))
    with pytest.raises(UserError, match="does not say what it was trained for"):
        evaluate(config(f"checkpoint={folder / '1.ckpt'}", "refine=3", *images))
