"""Speed of training: steps a second of JointIQ-Net beside CompressAI's mbt2018, in one process, in turns.

Both have the same N, M, batch and crop. A step is forward, loss, backward and update. The share of time that a training
waits for its data is measured with the project's own loader.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import compressai
import torch
from torch import Tensor

from src.bench.codec import LIGHT, LIGHT_GRDN, OURS, THEIRS, model_config
from src.bench.training_step import MODES, Mbt2018Step, OurStep, TrainingStep
from src.data.datamodule import ImageData
from src.data.prepared import PreparedData
from src.data.sample import sample_images
from src.errors import ConfigError, run_cli
from src.evaluation.progress import progress_bar
from src.evaluation.stopwatch import Moment, processor_name
from src.evaluation.tables import Table, number
from src.files import write_text
from src.runtime import keep_freed_memory, pick_device, set_threads

#: Steps a second, ours / mbt2018, without enhancer in float32 on a CPU: at least.
GOAL = 0.9
_NAMES = {OURS: "JointIQ-Net", LIGHT: "JointIQ-Net + light GRDN", THEIRS: "CompressAI mbt2018"}


def steps_of(N: int, M: int, device: torch.device, mode: str) -> dict[str, TrainingStep]:
    """The contenders, in the order of their turns."""
    ours = {**model_config(), "N": N, "M": M}
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
    """Time of one step, by contender and round: each round gives every contender ``steps`` of them in turn.

    Args:
        warm_up: rounds before, which do not count.
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
    """Ratios (steps a second, ours / mbt2018) and seconds, as they go into the JSON file."""
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
    """How long a training of ``steps`` steps waits for the batches of ``images``, after some to warm up.

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


def table(result: Mapping[str, Any]) -> Table:
    """Steps a second of all contenders in each mode."""
    settings = result["settings"]
    title = (
        f"training, N = {settings['N']}, M = {settings['M']}, batch {settings['batch']}, crop {settings['crop']}, "
        f"{settings['device']}, {settings['threads']} CPU threads, median of {settings['rounds']}"
    )
    modes = list(result["modes"])
    header = [text for mode in modes for text in (f"{mode}: steps/s", "s/step", "ratio", "ratio by CPU time")]
    rows = Table(title, ("network", *header))
    for name in (THEIRS, OURS, LIGHT):
        cells = [_NAMES[name]]
        for mode in modes:
            entries = result["modes"][mode]["contenders"]
            own, theirs = entries[name], entries[THEIRS]
            cells += [number(own["steps_per_second"], 3), number(own["seconds"], 3)]
            cells += [number(theirs[key] / own[key], 3) for key in ("seconds", "processor_seconds")]
        rows.rows.append(cells)
    return rows


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; the result is what the JSON file holds."""
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
        "model": model_config(),
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m src.bench.train", description=__doc__)
    for flags, value, text in (
        (("--N",), 192, "channels of the transforms"),
        (("--M",), 192, "channels of y"),
        (("--batch",), 8, "patches a step"),
        (("--crop",), 256, "their side in pixels, a multiple of 64 from 128 up"),
        (("--rounds",), 5, "timed rounds"),
    ):
        parser.add_argument(*flags, type=int, default=value, help=f"{text}; default: %(default)s")
    parser.add_argument("--steps", type=int, help="steps of each network a round; default: 20 on a GPU, else 1")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: all on a GPU, else fp32")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own")
    parser.add_argument("--data", type=Path, metavar="DIR", help="patches of src.data.prepare; default: the sample")
    parser.add_argument("--data-steps", type=int, default=0, help="steps to measure the wait for data with; default: 0")
    parser.add_argument("--workers", type=int, help="processes that prepare data; default: as in training")
    parser.add_argument(
        "--output", type=Path, default=Path("results/bench/train.json"), metavar="JSON", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    for key in ("N", "M", "batch", "rounds"):
        if getattr(options, key) < 1:
            raise ConfigError(f"--{key}", getattr(options, key), "a whole number from 1 up")
    if options.crop < 128 or options.crop % 64:
        raise ConfigError("--crop", options.crop, "a multiple of 64 from 128 up")
    if options.output.suffix != ".json":
        raise ConfigError("--output", str(options.output), "a file name that ends with .json")
    result = run(options)
    table(result).print()
    for mode, entry in result["data"].items():
        share, workers = 100 * entry["share_waiting"], entry["workers"]
        print(f"{mode}: {share:.2f} % of the time waiting for data ({workers} workers)")
    write_text(options.output, json.dumps(result, indent=2) + "\n")
    print("written:", options.output)
    return 0


if __name__ == "__main__":
    run_cli(main)
