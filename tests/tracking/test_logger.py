"""W&B runs, read back from the files that an offline run leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jointiq.commands import train as entry
from jointiq.data.images import write_png
from jointiq.errors import run_cli
from jointiq.tracking.logger import wandb_identity
from tests.conftest import photo
from tests.marks import slow
from tests.wandb_files import read, table

ROOT = Path(entry.__file__).resolve().parents[1]
TINY = (
    "+experiment=jointiq", "scale=demo", "model.N=4", "model.M=4", "data.batch_size=1", "enhancer.kernels=4",
    "trainer=cpu", "trainer.max_steps=2", "trainer.log_every_n_steps=1", "logger=wandb",
)  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Overrides for images that are just large enough for MS-SSIM."""
    folder = tmp_path_factory.mktemp("images")
    for name, seed in (("train/a", 0), ("val/b", 1), ("val/c", 2), ("test/d", 3)):
        write_png(folder / f"{name}.png", photo(164, 170, seed))
    return ("data=folder", *(f"data.{kind}_dir={folder / kind}" for kind in ("train", "val", "test")))


def anchors(folder: Path, points: int = 4) -> Path:
    rates = [0.5 * 2**i for i in range(points)]
    results = {"bpp": rates, "psnr-rgb": [20 + 3 * i for i in range(points)]}
    folder.mkdir()
    (folder / "jpeg.json").write_text(json.dumps({"name": "JPEG", "results": results}))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.setattr(sys, "argv", ["src/jointiq/commands/train.py", *overrides])
    with pytest.raises(SystemExit) as exit_info:
        run_cli(entry.main)
    return int(exit_info.value.code or 0)


def test_what_a_run_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: tuple[str, ...]) -> None:
    folder = tmp_path / "runs" / "jointiq" / "one"
    where = (
        *data,
        f"paths.results={tmp_path}",
        f"paths.run_dir={folder}",
        f"logger.wandb.anchors={anchors(tmp_path / 'a')}",
    )
    monkeypatch.setenv("WANDB_RUN_GROUP", "study")
    assert run(monkeypatch, *TINY, *where, "tags=[first,our-own]") == 0
    assert sys.modules["wandb"].run is None and (folder / "metrics.csv").is_file()
    (first,) = read(folder)
    assert first.finished and first.group == "study" and first.name == "jointiq/one"
    assert sorted(first.tags) == ["first", "our-own"]
    assert first.config["model"]["N"] == 4 and first.config["optim"]["lr"] == 1e-3 and first.config["lmbda"] == 0.03
    assert first.config["callbacks"]["panels"]["side"] == 384 and "object at 0x" not in json.dumps(first.config)

    values = {key for row in first.rows for key in row}
    both = {f"{kind}/{key}" for kind in ("train", "val") for key in ("loss", "bpp", "bpp_y", "bpp_z", "psnr")}
    assert both | {"test/bpp", "test/psnr", "test/ms_ssim"} <= values
    assert both | {"val/ms_ssim", "lr", "steps_per_second", "val/image_0.captions"} <= values
    losses = [row["train/loss"] for row in first.rows if "train/loss" in row]
    assert len(losses) == 2 and all(loss > 0 for loss in losses)
    (row,) = (row for row in first.rows if "val/image_0.captions" in row)
    captions = row["val/image_0.captions"]
    assert captions[0] == "original" and [text.split(",")[0] for text in captions[4:]] == ["bits of y", "bits of z"]
    (means,) = (row for row in first.rows if "val/psnr" in row)
    assert row["trainer/global_step"] == means["trainer/global_step"]
    media = list(folder.glob("wandb/offline-run-*/files/media/images/val/*.png"))
    assert len(media) == 6 and sum(path.stat().st_size for path in media) < 1_000_000

    (psi,) = (row for row in first.rows if "psi.captions" in row)
    assert [text.split(":")[0] for text in psi["psi.captions"]] == [f"channel {i}" for i in range(4)]
    (chart,) = (row for row in first.rows if "rd/curve_table.path" in row)
    assert chart["trainer/global_step"] == psi["trainer/global_step"] == means["trainer/global_step"]
    point, *behind = table(folder, chart["rd/curve_table.path"])
    assert (point["curve"], point["kind"], point["point"], point["step"]) == ("jointiq", "model", "0.03", 2)
    values = [means[f"val/{key}"] for key in ("bpp", "psnr", "ms_ssim")]
    assert [point[key] for key in ("bpp", "psnr", "ms_ssim")] == pytest.approx(values)
    assert [(row["curve"], row["kind"], row["bpp"], row["psnr"]) for row in behind][:2] == [
        ("JPEG", "anchor", 0.5, 20),
        ("JPEG", "anchor", 1.0, 23),
    ]


@pytest.mark.slow
def test_a_continued_run_has_the_same_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: tuple[str, ...]
) -> None:
    folder = tmp_path / "runs" / "jointiq" / "one"
    common = (*TINY, *data, f"paths.results={tmp_path}", f"paths.run_dir={folder}", "test=false")
    assert run(monkeypatch, *common) == 0
    last = folder / "checkpoints" / "last.ckpt"
    assert run(monkeypatch, *common, "trainer.max_steps=3", f"ckpt_path={last}") == 0
    first, second = read(folder)
    assert second.id == first.id


def test_ids_are_those_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "jointiq" / "lmbda0.1_seed0_ab"
    one = wandb_identity(folder / "2_enhancer", tmp_path)
    assert one == wandb_identity(folder / "2_enhancer", tmp_path) and one["name"].endswith("seed0_ab/2_enhancer")
    assert wandb_identity(folder, tmp_path)["id"] != one["id"]
    before = wandb_identity(folder, tmp_path)["id"]
    folder.with_name(f"{folder.name}.old1").mkdir(parents=True)
    assert wandb_identity(folder, tmp_path)["id"] != before
    assert wandb_identity(tmp_path / "elsewhere", tmp_path / "results")["name"] == "elsewhere"


def test_anchors_that_are_not_there_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = (f"paths.results={tmp_path}", f"logger.wandb.anchors={tmp_path / 'none'}")
    assert run(monkeypatch, *TINY, *where) == 2
    assert "no such file or folder of RD files" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        slow("logger.wandb.project=a/b", "logger.wandb.project='a/b' is not allowed"),
        slow("logger.wandb.offline=maybe", "logger.wandb.offline='maybe' is not allowed"),
        ("WANDB_MODE=bogus", "WANDB_MODE='bogus' is not allowed"),
    ],
)
def test_what_wandb_would_refuse_is_refused_before_work_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, message: str
) -> None:
    if wrong.startswith("WANDB_MODE"):
        monkeypatch.setenv(*wrong.split("="))
    overrides = [wrong] if wrong.startswith("logger") else []
    assert run(monkeypatch, *TINY, f"paths.results={tmp_path}", *overrides) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_jobs_of_a_sweep_are_runs_of_one_group(tmp_path: Path) -> None:
    where = (f"paths.results={tmp_path}", f"logger.wandb.anchors={anchors(tmp_path / 'a')}")
    command = [sys.executable, "-m", "src.train", "-m", *TINY, "lmbda=0.5,0.06", *where]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "sweeps").iterdir()
    runs = [read(folder) for folder in (tmp_path / "runs" / "jointiq").iterdir()]
    assert [len(each) for each in runs] == [1, 1]
    assert {each.group for (each,) in runs} == {sweep.name}
    assert len({each.id for (each,) in runs}) == 2
    assert {each.config["lmbda"] for (each,) in runs} == {0.5, 0.06}
    (closing,) = read(sweep)
    assert closing.finished and closing.group == sweep.name and closing.job == "bdrate"
    assert json.loads((sweep / "curves" / "jointiq.json").read_text())["parameter"] == ["0.5", "0.06"]
