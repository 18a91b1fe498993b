"""What an analysis is given, with rows that are made up."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jointiq.data.image_sets import ImageSet
from jointiq.studies.context import Context
from jointiq.studies.plan import Run, Scale, Study
from jointiq.studies.training import Training
from jointiq.sweeps.jobs import Job

IMAGES = ImageSet("set", (Path("a.png"), Path("b.png")), ("1", "2"))


def a_run(name: str, lmbda: Iterable[float], seeds: Iterable[int] = (0,), init_from: str | None = None) -> Run:
    return Run(name, name, (), tuple(lmbda), tuple(seeds), init_from)


def a_context(folder: Path, runs: Iterable[Run], rows: Any, **values: Any) -> Context:
    """A study whose trainings are all finished.

    Args:
        rows: gives what is measured of a training, one row an image of ``IMAGES``; None: nothing was.
        values: of the context that differ.
    """
    runs = tuple(runs)
    scale = Scale("demo", "", runs, ("test",), "all", (), ())
    trained = [
        Training(run, lmbda, seed, Job((), OmegaConf.create(), folder / f"{run.name}_{lmbda:g}_{seed}"))
        for run in runs
        for lmbda in run.lmbda
        for seed in run.seeds
    ]
    measured = {}
    for one in trained if rows else ():
        measured[one.measured_as] = {None: dict(zip(IMAGES.hashes, rows(one), strict=True))}
    context: dict[str, Any] = {
        "study": Study("mine", folder, "", "", "", {}),
        "scale": scale,
        "trained": trained,
        "sets": [IMAGES],
        "output": folder,
        "work": folder,
        "device": "cpu",
        "measured": measured,
        "anchors": lambda images, families: [],
    }
    return Context(**{**context, **values})
