"""Reproduce a table or figure of the papers: ``python -m src.study NAME --scale SCALE [--train DIR ...]``."""

from __future__ import annotations

import argparse
import os
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jointiq.command_line import Parser, program
from jointiq.configs import INSTALLED
from jointiq.errors import ConfigError, UserError, run_cli
from jointiq.studies.plan import SCALES, Study, read_study, study_names

if TYPE_CHECKING:
    from jointiq.studies.runner import Options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("study"),
        description="Run a table or figure of the papers again.",
        epilog="A study is declared in experiments/NAME/study.yaml and explained in experiments/NAME/README.md; its "
        "results go to experiments/NAME/results/SCALE. What is trained or measured already is not made again, and a "
        "training that was cut goes on: repeat the command. Without --train everything is done on the photographs "
        "inside scikit-image and scikit-learn. Exit code: 0 done, 1 a training failed, 2 a value or file that cannot "
        "be used, 130 stopped with Ctrl-C.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help=f"one of {', '.join(study_names())}")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="added to every training of the study")
    parser.add_argument("--scale", default="pilot", metavar="SCALE", help=f"{', '.join(SCALES)}; default: %(default)s")
    for key, metavar, text in (
        ("train", "DIR", "folder of training images, or NAME=DIR"),
        ("val", "DIR", "folder of validation images"),
        ("test", "DIR", "folder of test images; each is a set of its own"),
        ("published", "SET=DIR", "folder of others' RD files on the test set SET"),
        ("manifest", "FILE", "list of images not to be measured on: the manifest of a training set"),
    ):
        parser.add_argument(f"--{key}", action="append", default=[], metavar=metavar, help=f"{text}; may be repeated")
    parser.add_argument("--patches", type=Path, metavar="DIR", help="folder that src.prepare has made, for --train")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: %(default)s")
    output = "instead of experiments/NAME/results/SCALE (demo: RESULTS/studies/NAME/demo/results)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=output)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time; default: %(default)s")
    parser.add_argument("--device", default="auto", metavar="DEV", help="for coding images; default: %(default)s")
    parser.add_argument("--plan", action="store_true", help="tell the trainings, steps and images, and do nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the study."""
    given = _parser().parse_intermixed_args(arguments)
    if INSTALLED:
        raise UserError("studies are run in a checkout of the project: here the package is installed")
    if given.name is None:
        print("studies:")
        for name in study_names():
            study = read_study(name)
            print(f"  {name:10s} {study.title} ({', '.join(study.scales)})")
        return 0
    if given.jobs < 1:
        raise ConfigError("--jobs", given.jobs, "a whole number from 1 up")
    study = read_study(given.name)
    study.at(given.scale)
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    from jointiq.studies.runner import Options, run_study

    options = Options(
        train=tuple(given.train),
        val=tuple(given.val),
        test=tuple(given.test),
        patches=given.patches,
        published=tuple(given.published),
        manifests=tuple(map(Path, given.manifest)),
        overrides=tuple(given.overrides),
        results=given.results,
        output=given.output,
        jobs=given.jobs,
        device=given.device,
    )
    # Models this small hardly gain from a second thread; several processes at a time pay more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return _plan(study, given.scale, options) if given.plan else run_study(study, given.scale, options)


def _plan(study: Study, scale_name: str, options: Options) -> int:
    from jointiq.studies.runner import study_data, study_trainings

    """Print what the study would do: its trainings as commands, then the sum of them and what is measured."""
    scale = study.at(scale_name)
    data = study_data(scale, options)
    jobs = [one.job for one in study_trainings(scale, data, options) if one.job is not None]
    for job in jobs:
        state = "finished" if job.is_finished() else "to do   "
        print(f"{state}  python -m src.train {shlex.join(job.overrides)}")
    if scale.note:
        print(textwrap.fill(scale.note, 80))
    to_do = [job for job in jobs if not job.is_finished()]
    steps = sum(job.cfg.trainer.max_steps for job in to_do)
    chained = " in the first stage of each" if any("chain" in job.cfg.stage for job in to_do) else ""
    print(f"trainings: {len(to_do)} of {len(jobs)} to do, {steps} steps{chained}" if jobs else "nothing to train")
    if data.measured:
        models = sum(len(run.lmbda) * len(run.seeds) for run in scale.runs if run.measure)
        coded = f"{models} models" if models else "what the analyses take"
        print(f"measured: {coded}, on {', '.join(map(str, data.measured))}")
    print("analyses:", ", ".join(name for name, _ in scale.analyses))
    return 0


if __name__ == "__main__":
    run_cli(main)
