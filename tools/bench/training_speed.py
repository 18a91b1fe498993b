"""Steps a second of JointIQ-Net beside CompressAI's mbt2018, and how long a training waits for its data."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import compressai
import torch
from torch import Tensor

from jointiq.console import progress_bar
from jointiq.data.datamodule import ImageData
from jointiq.data.prepared import PreparedData
from jointiq.data.sample import sample_images
from jointiq.evaluation.stopwatch import Moment, processor_name
from jointiq.runtime import keep_freed_memory, pick_device, set_threads
from tools.bench.codec import LIGHT, LIGHT_GRDN, OURS, THEIRS, model_config
from tools.bench.modes import MODES
from tools.bench.training_step import Mbt2018Step, OurStep, TrainingStep

#: Steps a second, ours / mbt2018, without enhancer in float32 on a CPU: at least.
GOAL = 0.9
#: The order that trainings have by default.
SCAN = "wavefront"


def steps_of(N: int, M: int, device: torch.device, mode: str) -> dict[str, TrainingStep]:
    """Return the contenders, in the order of their turns."""
    ours = {**model_config(scan=SCAN), "N": N, "M": M}
    return {
        OURS: OurStep(ours, device, MODES[mode]),
        THEIRS: Mbt2018Step(N, M, device, MODES[mode]),
        LIGHT: OurStep({**ours, "enhancer": LIGHT_GRDN}, device, MODES[mode]),
    }


def interleave(
    entries: Mapping[str, TrainingStep],
    batch: Tensor,
    rounds: int,
    steps: int,
    warm_up: int,
    advance: Callable[[], object],
) -> dict[str, list[Moment]]:
    """Time a step, by contender and round: in a round each contender does ``steps`` of them in turn.

    Args:
        warm_up: rounds before, which are not counted.
        advance: called after each turn.
    """
    times: dict[str, list[Moment]] = {name: [] for name in entries}
    for turn in range(warm_up + rounds):
        for name, step in entries.items():
            _wait_for(batch.device)
            began = Moment.now()
            for _ in range(steps):
                step(batch)
            _wait_for(batch.device)
            spent = Moment.now() - began
            if turn >= warm_up:
                times[name].append(Moment(spent.wall / steps, spent.cpu / steps))
            advance()
    return times


def summary(times: Mapping[str, Sequence[Moment]], batch: int) -> dict[str, Any]:
    """Return ratios (steps a second, ours / mbt2018) and seconds for the JSON file."""
    wall = {name: median(run.wall for run in runs) for name, runs in times.items()}
    cpu = {name: median(run.cpu for run in runs) for name, runs in times.items()}
    return {
        "ratio": wall[THEIRS] / wall[OURS],
        "processor_time_ratio": cpu[THEIRS] / cpu[OURS],
        "light_grdn_ratio": wall[THEIRS] / wall[LIGHT],
        "contenders": {
            name: {
                "steps_per_second": 1 / wall[name],
                "patches_per_second": batch / wall[name],
                "seconds": wall[name],
                "processor_seconds": cpu[name],
                "runs_seconds": [run.wall for run in runs],
            }
            for name, runs in times.items()
        },
    }


def waiting(
    step: TrainingStep, images: ImageData, device: torch.device, steps: int, advance: Callable[[], object]
) -> dict[str, Any]:
    """Measure how long a training of ``steps`` steps waits for the batches of ``images``, after some to warm up.

    The device has finished each step before the next batch is asked for, so what is counted is time in which it idles.
    """
    images.setup("fit")
    warm_up = min(steps, 10)
    waited = 0.0
    batches = iter(images.train_batches(warm_up + steps))
    began = time.perf_counter()
    for turn in range(warm_up + steps):
        if turn == warm_up:
            began, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        step(batch.to(device, non_blocking=True))
        _wait_for(device)
        advance()
    seconds = time.perf_counter() - began
    return {
        "workers": images.num_workers,
        "steps": steps,
        "seconds": seconds,
        "seconds_waiting": waited,
        "share_waiting": waited / seconds,
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark with the options of ``python -m tools.bench.train``; return the contents of its JSON file."""
    device = pick_device(options.device)
    set_threads(options.threads)
    gpu = device.type == "cuda"
    if not gpu:
        keep_freed_memory()  # as src.train does; for both
    modes = options.modes or (list(MODES) if gpu else ["fp32"])
    steps, warm_up = options.steps or (20 if gpu else 1), 1
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch, 3, options.crop, options.crop)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    result: dict[str, Any] = {"goal": {"ratio": GOAL}, "modes": {}, "data": {}}
    with progress_bar() as progress:
        for mode in modes:
            turns = 3 * (warm_up + options.rounds)
            task = progress.add_task(mode, total=turns, note="")
            entries = steps_of(options.N, options.M, device, mode)
            times = interleave(entries, batch, options.rounds, steps, warm_up, partial(progress.advance, task))
            result["modes"][mode] = summary(times, options.batch)
            if options.data_steps:
                total = options.data_steps + min(options.data_steps, 10)
                task = progress.add_task(f"{mode}: data", total=total, note="")
                advance = partial(progress.advance, task)
                result["data"][mode] = waiting(entries[OURS], _data(options), device, options.data_steps, advance)
    result["settings"] = {
        "device": torch.cuda.get_device_name(device) if gpu else processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compressai": compressai.__version__,
        "N": options.N,
        "M": options.M,
        "batch": options.batch,
        "crop": options.crop,
        "rounds": options.rounds,
        "steps_a_round": steps,
        "model": model_config(scan=SCAN),
        "light_grdn": LIGHT_GRDN,
    }
    return result


def _data(options: argparse.Namespace) -> ImageData:
    settings = {"batch_size": options.batch, "crop": options.crop, "num_workers": options.workers}
    if options.data is None:
        return ImageData(sample_images("train"), [], **settings)
    return PreparedData(options.data, [], **settings)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
