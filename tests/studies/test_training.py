"""The trainings of a study: the GPUs that they get, and patches cut in advance as their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jointiq.configs import compose
from jointiq.data.images import pixel_hash, read_image, write_png
from jointiq.data.prepare.patch_cutting import PatchSettings
from jointiq.data.prepare.patch_set import prepare
from jointiq.errors import ConfigError, DataError
from jointiq.models import build_model
from jointiq.studies import training
from jointiq.studies.plan import Run, Scale, read_study, study_names
from jointiq.studies.runner import Options, study_data
from jointiq.training.assemble import model_config
from jointiq.training.start.pca import PCA, has_the_transforms
from tests.studies.pretended import PretendedJobs

RUN = Run("one", "one", ("+experiment=lee2019", "scale=demo", "model.N=6", "model.M=8"), (0.5,), (0,))
SCALE = Scale("demo", "", (RUN,), ("test",), "all", (), ())


@pytest.mark.parametrize(("trainer", "gpus"), [("auto", ["4", "7"]), ("ddp", ["4,7"]), ("cpu", [])])
def test_trainings_deal_out_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str, gpus: list[str]
) -> None:
    """Those that they may use; with several GPUs a training, in sets."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    jobs = PretendedJobs()
    monkeypatch.setattr(training, "run_jobs", jobs)
    made = training.trainings(SCALE, [f"trainer={trainer}", f"paths.results={tmp_path}"])
    assert training.train(made, 2, tmp_path) == made
    assert jobs.gpus == gpus


@pytest.mark.parametrize("name", study_names())
def test_every_shipped_study_starts_from_components_where_it_can(name: str) -> None:
    for scale in read_study(name).scales.values():
        runs = [
            replace(run, lmbda=run.lmbda[:1], seeds=run.seeds[:1])
            for run in scale.runs
            if f"init_from={PCA}" in run.overrides
        ]
        for made in training.trainings(replace(scale, runs=tuple(runs)), []):
            assert made.job is not None
            assert has_the_transforms(build_model(model_config(made.job.cfg))), f"{scale.name}: {made.run.name}"


@pytest.fixture
def options(tmp_path: Path, picture: Callable[..., Any]) -> Options:
    """Patches of two images, ``train``; two other images each to validate and to test on."""
    for name, seeds in {"train": (0, 1), "val": (2, 3), "test": (4, 5)}.items():
        for seed in seeds:
            write_png(tmp_path / name / f"{seed}.png", picture(70, 80, seed))
    prepare([str(tmp_path / "train")], tmp_path / "patches", PatchSettings(patches=6, side=64))
    folders = {name: (str(tmp_path / name),) for name in ("val", "test")}
    return Options(patches=tmp_path / "patches", results=tmp_path / "results", **folders)


def test_patches_are_the_training_images(options: Options, tmp_path: Path) -> None:
    data = study_data(SCALE, options)
    images = sorted((tmp_path / "train").iterdir())
    assert data.train is not None and data.train.name == "patches"
    assert sorted(data.train.hashes) == sorted(pixel_hash(read_image(path)) for path in images)
    cfg = compose("train", ["+experiment=jointiq", *data.overrides])
    assert cfg.data.name == "prepared" and Path(cfg.data.train_dir).resolve() == options.patches
    # Elsewhere they are the same training.
    moved = (tmp_path / "patches").rename(tmp_path / "elsewhere")
    assert study_data(SCALE, replace(options, patches=moved)).overrides == data.overrides
    assert Path(cfg.data.train_dir).resolve() == moved


def test_images_of_the_patches_are_not_tested_on(options: Options, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 of the 2 images of .* are in the training set"):
        study_data(SCALE, replace(options, test=(f"mine={tmp_path / 'train'}",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"train": ("x",)}, "without --train"), ({"val": ()}, "--val"), ({"test": ()}, "--test")],
)
def test_patches_go_with_the_users_own_images(options: Options, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_data(SCALE, replace(options, **changes))


def test_a_folder_without_patches(options: Options, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared patches"):
        study_data(SCALE, replace(options, patches=tmp_path / "train"))
