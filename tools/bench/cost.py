"""Training costs of the papers' tables and figures: ``python -m tools.bench.cost [--bench JSON]``.

The time of a step is modelled as proportional to its multiplications, with one factor for the compression network I and
one for the enhancer Q, which works on many pixels with few channels; ``python -m tools.bench.train`` measures both:

    seconds a step = batch * pixels * (MACs of I * passes of I * a + MACs of Q * passes of Q * share of pixels * b)

MACs are those of one forward pass for a pixel. A network that learns takes three passes' worth (forward, gradients of
its activations, gradients of its weights), a frozen one a single pass. Steps, sizes and stages are as configured.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir

from jointiq.command_line import Parser, override
from jointiq.configs import CONFIGS
from jointiq.console import Table, number, progress_bar
from jointiq.errors import ConfigError, UserError, run_cli
from jointiq.models import build_model
from jointiq.studies.plan import read_study, study_names
from jointiq.studies.training import trainings
from tools.bench.codec import LIGHT, OURS

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: Forward passes that a step of a trained and of a frozen network costs.
LEARNING, FROZEN = 3, 1
_SCALE = "paper"
_RATES_OF = "jointiq"
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Work:
    """Multiplications of a number of training steps, in I and in Q."""

    steps: int
    macs_i: float
    macs_q: float

    def __add__(self, other: Work) -> Work:
        return Work(self.steps + other.steps, self.macs_i + other.macs_i, self.macs_q + other.macs_q)


@dataclass(frozen=True)
class Speed:
    """Seconds of one multiplication of I and of Q in training, and the source of the numbers."""

    seconds_i: float
    seconds_q: float
    source: str

    def seconds(self, work: Work) -> float:
        """Return the seconds of some work."""
        return work.macs_i * self.seconds_i + work.macs_q * self.seconds_q


@functools.cache
def _macs(kind: str, config: str, side: int) -> int:
    """Return the MACs of a forward pass of a model or enhancer (configuration as JSON) for one patch."""
    # Imported late, so that --help and a mistyped command do not wait for PyTorch.
    import torch

    from jointiq.enhancers import build_enhancer
    from jointiq.evaluation.complexity import count_macs

    x = torch.zeros(1, 3, side, side)
    if kind == "model":
        return count_macs(build_model(json.loads(config)).eval(), x)
    enhancer = build_enhancer(json.loads(config))
    return 0 if enhancer is None else count_macs(enhancer.to("meta"), x.to("meta"))


def network_macs(config: Mapping[str, Any], side: int) -> tuple[int, int]:
    """Return the MACs of a forward pass of I and of Q for one patch of ``side`` pixels."""
    without = json.dumps({**config, "enhancer": None}, sort_keys=True)
    return _macs("model", without, side), _macs("enhancer", json.dumps(config["enhancer"], sort_keys=True), side)


def work_of(cfg: DictConfig) -> Work:
    """Return the work of a training of one stage with the composed config ``cfg``."""
    from jointiq.training.assemble import model_config

    macs_i, macs_q = network_macs(model_config(cfg), cfg.data.crop)
    passes_i = FROZEN if cfg.stage.trains == "enhancer" else LEARNING
    share_q = 1.0 if cfg.stage.crop is None else (cfg.stage.crop / cfg.data.crop) ** 2
    patches = cfg.trainer.max_steps * cfg.data.batch_size
    return Work(cfg.trainer.max_steps, patches * macs_i * passes_i, patches * macs_q * LEARNING * share_q)


def stage_configs(cfg: DictConfig, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Yield the config of a training, or those of its stages."""
    chain = cfg.stage.get("chain")
    if chain is None:
        yield cfg
        return
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for link in chain:
            yield compose("train", overrides=[*overrides, *(override(key, value) for key, value in link.items())])


def study_work(name: str) -> dict[Path, Work]:
    """Return the work of a study's trainings at the papers' scale, by their folders, as studies share trainings.

    Trainings for a given time are left out: how many steps that is depends on the device.
    """
    scale = read_study(name).scales.get(_SCALE)
    works: dict[Path, Work] = {}
    for training in [] if scale is None else trainings(scale, ()):
        if training.job is None or training.job.cfg.trainer.max_time is not None:
            continue
        parts = [work_of(cfg) for cfg in stage_configs(training.job.cfg, training.job.overrides)]
        works[training.folder] = functools.reduce(Work.__add__, parts)
    return works


def measured_speed(path: Path, mode: str | None) -> Speed:
    """Read the speed that ``python -m tools.bench.train`` has measured.

    Args:
        path: its JSON file.
        mode: one of its modes; None is the first.

    Raises:
        UserError: the file is not one of these, or lacks the mode.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        settings, modes = result["settings"], result["modes"]
        mode = next(iter(modes)) if mode is None else mode
        if mode not in modes:
            raise UserError(f"{path} holds no mode {mode}; allowed: {', '.join(modes)}")
        ours, light = (modes[mode]["contenders"][name]["seconds"] for name in (OURS, LIGHT))
        config = {**settings["model"], "N": settings["N"], "M": settings["M"], "enhancer": settings["light_grdn"]}
        macs_i, macs_q = network_macs(config, settings["crop"])
        passes = settings["batch"] * LEARNING
        source = f"{settings['device']}, {settings['threads']} CPU threads, {mode}"
        return Speed(ours / (macs_i * passes), (light - ours) / (macs_q * passes), source)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{path} cannot be read; allowed: the JSON file of python -m tools.bench.train") from error


def assumed_speed(tflops: float) -> Speed:
    """Return the speed of a device with ``tflops`` * 10^12 operations a second, two a multiplication."""
    return Speed(2 / (tflops * 1e12), 2 / (tflops * 1e12), f"{tflops:g} TFLOP/s, an assumption and not a measurement")


def studies_table(studies: Mapping[str, Mapping[Path, Work]], speed: Speed | None) -> Table:
    """Return trainings, steps, multiplications and hours of each study, and of all, each training once."""
    title = "cost of the studies at scale=paper" + (f" ({speed.source})" if speed else "")
    rows = Table(title, ("study", "trainings", "steps, 10^6", "MACs, 10^18", "device hours"))

    def add(name: str, works: Mapping[Path, Work]) -> None:
        total = functools.reduce(Work.__add__, works.values(), Work(0, 0.0, 0.0))
        hours = number(speed.seconds(total) / 3600 if speed else None, 0)
        macs = number((total.macs_i + total.macs_q) / 1e18, 1)
        rows.rows.append((name, str(len(works)), number(total.steps / 1e6, 1), macs, hours))

    for name, works in studies.items():
        add(name, works)
    rows.end_group()
    add("all, each training once", {path: work for works in studies.values() for path, work in works.items()})
    return rows


def rates_table(speed: Speed | None, devices: int, link: float) -> Table:
    """Return size, step and exchanged gradients of the rate points of JointIQ-Net with the light GRDN.

    Args:
        speed: of one device; None leaves the times out.
        devices: number of devices that share a batch.
        link: 10^9 bytes a second from a device to the next one.
    """
    from jointiq.training.assemble import model_config

    header = (
        "lambda",
        "N",
        "M",
        "parameters, 10^6",
        "gradient, MB",
        "MACs a step, 10^12",
        "s a step",
        "all-reduce, ms",
    )
    rows = Table(
        f"JointIQ-Net, light GRDN: a step of the whole batch, its gradients over {devices} devices at {link:g} GB/s",
        (*header, f"speed-up by {devices}"),
    )
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        base = compose("train", overrides=[f"+experiment={_RATES_OF}", f"scale={_SCALE}"])
        points = [float(row.lmbda) for row in base.rates.table]
        cfgs = [
            compose("train", overrides=[f"+experiment={_RATES_OF}", f"scale={_SCALE}", f"lmbda={lmbda:g}"])
            for lmbda in points
        ]
    for lmbda, cfg in zip(points, cfgs, strict=True):
        config = model_config(cfg)
        parameters = sum(parameter.numel() for parameter in build_model(config).parameters())
        work = work_of(cfg)
        # All-reduce in a ring: each device sends 2 (n - 1) / n of the gradients.
        exchange = 2 * (devices - 1) / devices * parameters * _FLOAT_BYTES / (link * 1e9)
        step = speed.seconds(work) / work.steps if speed else None
        rows.rows.append(
            (
                f"{lmbda:g}",
                str(config["N"]),
                str(config["M"]),
                number(parameters / 1e6, 1),
                number(parameters * _FLOAT_BYTES / 1e6, 0),
                number((work.macs_i + work.macs_q) / work.steps / 1e12, 2),
                number(step, 3),
                number(1000 * exchange, 1),
                number(step / (step / devices + exchange) if step else None, 1),
            )
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print both tables."""
    parser = Parser(prog="python -m tools.bench.cost", description="Training costs of the papers' tables and figures.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bench", type=Path, metavar="JSON", help="what python -m tools.bench.train has written")
    source.add_argument(
        "--tflops", type=float, metavar="X", help="assume a device that keeps up X * 10^12 operations/s"
    )
    parser.add_argument("--mode", help="mode of the measurement; default: its first")
    parser.add_argument("--devices", type=int, default=8, metavar="N", help="that share a batch; default: %(default)s")
    parser.add_argument(
        "--link", type=float, default=20.0, metavar="GB/S", help="between devices; default: %(default)s"
    )
    parser.add_argument("--studies", nargs="+", metavar="NAME", choices=study_names(), help="default: all")
    options = parser.parse_args(arguments)
    for key in ("tflops", "devices", "link"):
        value = getattr(options, key)
        if value is not None and not value > 0:
            raise ConfigError(f"--{key}", value, "a number above 0")
    speed = measured_speed(options.bench, options.mode) if options.bench else None
    if options.tflops is not None:
        speed = assumed_speed(options.tflops)
    works = {}
    with progress_bar() as progress:
        task = progress.add_task("studies", total=len(options.studies or study_names()), note="")
        for name in options.studies or study_names():
            progress.update(task, note=name)
            works[name] = study_work(name)
            progress.advance(task)
    studies_table(works, speed).print()
    rates_table(speed, options.devices, options.link).print()
    return 0


if __name__ == "__main__":
    run_cli(main)
