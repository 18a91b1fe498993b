"""Complexity of a model and of each of its parts: parameters, multiplications, coding time and memory.

A part is a named submodule of the model (``g_a``, ``h_s``, ``estimator``, ``enhancer``, ...). A MAC is one
multiplication with its addition. Those of convolutions and matrix products are counted, with PyTorch's
``FlopCounterMode`` (two operations each); those of activations and other pointwise operations are not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch
from compressai.models import CompressionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jointiq.coding.image_codec import decode_image, encode_image, to_tensor
from jointiq.console import Table, number
from jointiq.data.sample import photograph
from jointiq.entropy_models.base import EntropyModel
from jointiq.evaluation.stopwatch import Sections, forget_peak, peak_bytes
from jointiq.layers.padding import Size
from jointiq.models.base import LearnedCodec

#: Section of entropy coding and decoding, outside of the networks.
CODING = "entropy coding"
#: Section of everything else: reading pixels, checksums, the file's header, 8-bit rounding.
OTHER = "other"
WARM_UP_SIZE = (64, 64)

_CODING_METHODS = ("encode", "decode")


@dataclass(frozen=True)
class Cost:
    """Cost of a part or of a whole model.

    Attributes:
        parameters: number of trained values.
        macs_per_pixel: MACs of one forward pass, per pixel of the image.
        encoding_time, decoding_time: wall-clock seconds for one image; None: not measured. The time of a part excludes
            other parts that it calls, so that the parts add up to the whole.
    """

    parameters: int
    macs_per_pixel: float
    encoding_time: float | None = None
    decoding_time: float | None = None


@dataclass(frozen=True)
class Complexity:
    """Cost of a model for an image of one size.

    Attributes:
        size: height and width of the image.
        total: the whole model.
        parts: its networks by name in the model's order, :data:`CODING` and :data:`OTHER`, without those at no cost.
        encoding_memory, decoding_memory: peak memory in bytes: of the whole process on a CPU, of tensors on a GPU;
            None: not measured.
    """

    size: Size
    total: Cost
    parts: Mapping[str, Cost]
    encoding_memory: int | None = None
    decoding_memory: int | None = None

    def columns(self) -> dict[str, float | int | None]:
        """Return the whole model's numbers by their names in tables and RD files."""
        return {**asdict(self.total), "encoding_memory": self.encoding_memory, "decoding_memory": self.decoding_memory}

    def as_dict(self) -> dict[str, Any]:
        """Return all values for JSON: ``height``, ``width``, the columns, and ``parts`` with theirs."""
        height, width = self.size
        parts = {name: asdict(cost) for name, cost in self.parts.items()}
        return {"height": height, "width": width, **self.columns(), "parts": parts}


def complexity(
    model: LearnedCodec, size: Size = (512, 768), repeats: int = 3, step: Callable[[str], object] = lambda note: None
) -> Complexity:
    """Measure a model on its device with the embedded photograph.

    Args:
        model: any model; it is set to evaluation mode.
        size: height and width of the image.
        repeats: number of timed runs, of which the median counts; 0: count parameters and MACs only.
        step: called :func:`steps` times with the name of the next step, for a progress bar.
    """
    model.eval()
    networks, image = parts_of(model), photograph(size)
    step("counting")
    macs = _macs(model, networks, to_tensor(image, model.device))
    parameters = _parameters(model, networks)
    encoding: Mapping[str, float | None] = dict.fromkeys((*networks, CODING, OTHER))
    decoding = encoding
    encoding_memory = decoding_memory = None
    if repeats:
        step("warming up")
        decode_image(model, encode_image(model, photograph(WARM_UP_SIZE), estimate=False).data)
        data = encode_image(model, image, estimate=False).data
        step("encoding")
        encoding, encoding_memory = _timed(model, networks, repeats, lambda: encode_image(model, image, estimate=False))
        step("decoding")
        decoding, decoding_memory = _timed(model, networks, repeats, lambda: decode_image(model, data))
    parts = {name: Cost(parameters[name], macs[name], encoding[name], decoding[name]) for name in encoding}
    total = Cost(sum(parameters.values()), sum(macs.values()), _sum(encoding), _sum(decoding))
    present = {name: cost for name, cost in parts.items() if any(asdict(cost).values())}
    return Complexity(size, total, present, encoding_memory, decoding_memory)


def complexity_table(result: Complexity, title: str) -> Table:
    """Return a table with a row for each part and one for the whole model."""
    table = Table(title, ("part", "parameters", "MACs / pixel", "encode s", "decode s"))

    def add(name: str, cost: Cost) -> None:
        seconds = (number(cost.encoding_time, 3), number(cost.decoding_time, 3))
        table.rows.append((name, str(cost.parameters), number(cost.macs_per_pixel, 0), *seconds))

    for name, cost in result.parts.items():
        add(name, cost)
    table.end_group()
    add("all", result.total)
    return table


def steps(repeats: int) -> int:
    """Return how often :func:`complexity` calls ``step``."""
    return 4 if repeats else 1


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the networks of a model by name; lists, entropy models and inner models (CompressAI's) give theirs."""
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, CompressionModel | EntropyModel):
            parts |= parts_of(child)
        elif isinstance(child, nn.ModuleList | nn.ModuleDict):
            parts |= {f"{name}.{inner}": module for inner, module in parts_of(child).items()}
        else:
            parts[name] = child
    return parts


def count_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Return the MACs of ``module(*inputs)``; on the ``meta`` device nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def _sum(values: Mapping[str, float | None]) -> float | None:
    present = [value for value in values.values() if value is not None]
    return sum(present) if present else None


def _macs(model: nn.Module, networks: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
    """Return the MACs per pixel of one forward pass by part; those outside of all parts are :data:`OTHER`."""
    pixels = x.shape[-2] * x.shape[-1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        sections = Sections(counter.get_total_flops)
        with _measured(networks, sections):
            model(x)
    sections.spent[OTHER] = counter.get_total_flops() - sum(sections.spent.values())
    return {name: sections.spent[name] / 2 / pixels for name in (*networks, CODING, OTHER)}


def _parameters(model: nn.Module, networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return the parameters by part, each counted once; those outside of all parts are :data:`OTHER`."""
    seen: set[nn.Parameter] = set()
    counts = {CODING: 0}
    for name, module in {**networks, OTHER: model}.items():
        new = set(module.parameters()) - seen
        counts[name] = sum(parameter.numel() for parameter in new)
        seen |= new
    return counts


@contextlib.contextmanager
def _measured(networks: Mapping[str, nn.Module], sections: Sections) -> Iterator[None]:
    """Measure the forward passes of all modules of the networks while this context lasts."""
    # Every module, because a model may call a submodule of a part without calling the part itself.
    modules = [(name, module) for name, network in networks.items() for module in network.modules()]
    try:
        for name, module in modules:
            module.__dict__["forward"] = sections.measure(name, module.forward)
        yield
    finally:
        for _, module in modules:
            module.__dict__.pop("forward", None)


def _timed(
    model: LearnedCodec, networks: Mapping[str, nn.Module], repeats: int, action: Callable[[], object]
) -> tuple[Mapping[str, float | None], int]:
    """Return the seconds by section of the run with the median time, and the peak memory of all runs in bytes."""
    cuda = model.device.type == "cuda"
    clock = _cuda_clock(model.device) if cuda else perf_counter
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    else:
        forget_peak()
    runs = []
    for _ in range(repeats):
        sections = Sections(clock)
        with _measured(networks, sections), _coding_measured(model, sections):
            sections.measure(OTHER, action)()
        runs.append({name: sections.spent[name] for name in (*networks, CODING, OTHER)})
    memory = torch.cuda.max_memory_allocated(model.device) if cuda else peak_bytes()
    runs.sort(key=lambda run: sum(run.values()))
    return runs[(repeats - 1) // 2], memory


@contextlib.contextmanager
def _coding_measured(model: LearnedCodec, sections: Sections) -> Iterator[None]:
    try:
        for name in _CODING_METHODS:
            model.__dict__[name] = sections.measure(CODING, getattr(model, name))
        yield
    finally:
        for name in _CODING_METHODS:
            model.__dict__.pop(name, None)


def _cuda_clock(device: torch.device) -> Callable[[], float]:
    def clock() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return clock
