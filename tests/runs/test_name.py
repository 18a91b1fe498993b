"""The name of a run: what counts for it and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jointiq.runs.name import run_folder, run_key
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


def test_a_folder_is_named_by_experiment_and_key_unless_it_is_given() -> None:
    cfg = tiny.config(*DEMO, "paths.results=r")
    assert run_folder(cfg) == Path("r/runs/jointiq") / run_key(cfg)
    assert run_folder(tiny.config(*DEMO, "paths.run_dir=here")) == Path("here")
