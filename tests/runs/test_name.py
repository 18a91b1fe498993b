"""The name of a run: what counts for it and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jointiq.runs.name import curve_name, curve_overrides, run_folder, run_key
from jointiq.runs.resume import config_to_train
from tests.training import tiny

DEMO = ("+experiment=jointiq", "scale=demo")
FOLDER = ("data=folder", "data.train_dir=a", "data.val_dir=b")


@pytest.mark.parametrize(
    "overrides",
    [
        ("logger=wandb", "callbacks.progress.style=off", "resume=never", "ckpt_path=x.ckpt", "paths.results=x"),
        ("optimized_metric=val/psnr",),
        ("trainer=ddp_cpu", "trainer.num_nodes=2"),
        ("threads=3", "sweep.jobs=3"),
        ("optim.compile=true", "data.num_workers=3", "data.preload_mb=0"),
    ],
)
def test_how_a_run_runs_is_not_in_its_name(overrides: tuple[str, ...]) -> None:
    assert run_key(tiny.config(*DEMO, *overrides)) == run_key(tiny.config(*DEMO))


def test_what_a_run_learns_is_in_its_name() -> None:
    several = (*FOLDER, "data.train_dir=[a,c]")
    changed = (
        (),
        ("seed=1",),
        ("lmbda=0.5",),
        ("trainer.max_steps=7",),
        ("init_from=x.ckpt",),
        ("init_from=null",),
        FOLDER,
        several,
    )
    keys = [run_key(tiny.config(*DEMO, *overrides)) for overrides in changed]
    assert len({key.rpartition("_")[2] for key in keys}) == len(changed)
    assert keys[1].startswith("lmbda0.03_seed1_") and keys[2].startswith("lmbda0.5_seed0_")
    assert run_key(tiny.config(*DEMO, "model.rates=continuous")).startswith("all_rates_seed0_")


def test_a_folder_is_named_by_experiment_and_key_unless_it_is_given() -> None:
    cfg = tiny.config(*DEMO, "paths.results=r")
    assert run_folder(cfg) == Path("r/runs/jointiq") / run_key(cfg)
    assert run_folder(tiny.config(*DEMO, "paths.run_dir=here")) == Path("here")


def chosen(*overrides: str) -> Path:
    cfg = config_to_train(tiny.config(*DEMO, "paths.results=r", *overrides), [*DEMO, *overrides])
    return run_folder(cfg)


def test_a_folder_says_the_parts_that_were_chosen() -> None:
    assert chosen("enhancer=vdsr").parent == Path("r/runs/jointiq-enhancer=vdsr")
    several = ("model.N=8", "optim=sgd", "enhancer=none", "trainer=cpu", "logger=wandb", "data=sample", "seed=3")
    assert chosen(*several).parent == Path("r/runs/jointiq-enhancer=none-optim=sgd")
    assert "=" not in chosen("enhancer=vdsr").name
    for same in ("enhancer=grdn_light", "distortion=mse", "lmbda=0.5", "model.N=8", "trainer=cpu"):
        assert chosen(same).parent == Path("r/runs/jointiq"), same


def test_folders_of_earlier_versions_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = chosen("enhancer=vdsr")
    earlier = Path("r/runs/jointiq") / named.name
    earlier.mkdir(parents=True)
    assert chosen("enhancer=vdsr") == earlier
    named.mkdir(parents=True)
    assert chosen("enhancer=vdsr") == named


def test_what_makes_another_curve_of_what_is_typed() -> None:
    typed = ("+experiment=jointiq", "lmbda=0.5", "seed=3", "enhancer=vdsr", "model.N=8", "+model.x=1", "scale=cpu")
    how = ("trainer=ddp", "trainer.devices=2", "trainer.max_steps=9", "logger=none", "hydra/launcher=x", "test=false")
    told = ["enhancer=vdsr", "model.N=8", "model.x=1", "scale=cpu", "trainer.max_steps=9"]
    assert curve_overrides([*typed, *how]) == told


def test_curves_are_named_by_the_parts_that_were_chosen() -> None:
    typed = ("distortion=ms_ssim", "enhancer=vdsr", "model.N=8", "stage=crop")
    assert curve_name("jointiq", "crop", "ms_ssim", typed) == "jointiq enhancer=vdsr crop ms_ssim"
    assert curve_name("jointiq", "joint", "mse") == "jointiq"
