"""Our codec beside models of CompressAI: encode, decode and the entropy part alone, in one process on one core."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from jointiq.data.sample import PHOTOGRAPH, photograph
from jointiq.evaluation.stopwatch import Moment, processor_name

# PyTorch is imported late, by the functions: command lines read the names below without waiting for it.
if TYPE_CHECKING:
    from jointiq.evaluation.stopwatch import Sections
    from jointiq.layers.padding import Size
    from tools.bench.contenders import Contender

CHANNELS = 192
SIZE = (512, 768)
QUICK_SIZE = (256, 256)
BPP_RANGE = (0.4, 0.6)
LIGHT_GRDN = {"name": "grdn", "grdbs": 4, "rdbs": 3, "convs": 3, "kernels": 32}

OURS, WAVEFRONT, LIGHT = "jointiq", "jointiq_wavefront", "jointiq_light_grdn"
THEIRS, HYPERPRIOR, CHECKERBOARD, ELIC = "mbt2018", "bmshj2018-hyperprior", "mbt2018-checkerboard", "elic2022-official"
#: In the order of the turns and of the table; the ratios are those to :data:`THEIRS`.
NAMES = {
    THEIRS: THEIRS,
    HYPERPRIOR: HYPERPRIOR,
    CHECKERBOARD: CHECKERBOARD,
    ELIC: ELIC,
    OURS: "JointIQ-Net",
    WAVEFRONT: "JointIQ-Net, wavefront",
    LIGHT: "JointIQ-Net, light GRDN",
}
PARTS = ("encode", "decode", "entropy_decode")
# JointIQ-Net in eight steps without enhancer / mbt2018.
GOALS = {"encode": 0.25, "decode": 0.19, "entropy_decode": 0.11}


def model_config(enhancer: Mapping[str, Any] | None = None, scan: str = "quarters") -> dict[str, Any]:
    """Return the configuration of the JointIQ-Net that is timed, all its parts on."""
    parts = {"G": 3, "global_context": True, "mprm": True, "scan": scan, "enhancer": enhancer}
    return {"name": "jointiq", "N": CHANNELS, "M": CHANNELS, **parts}


@dataclass
class Times:
    """All timed runs of a contender, by part, and the sizes of what it coded."""

    runs: dict[str, list[Moment]] = field(default_factory=lambda: {part: [] for part in PARTS})
    coded_bytes: dict[str, int] = field(default_factory=dict)

    def wall(self, part: str) -> float:
        """Return the median wall-clock seconds of a part."""
        return median(run.wall for run in self.runs[part])

    def cpu(self, part: str) -> float:
        """Return the median processor seconds of a part."""
        return median(run.cpu for run in self.runs[part])


def contenders(size: Size, scale: float) -> dict[str, Contender]:
    """Return the contenders, all on the same photograph and the same latents."""
    from tools.bench.contenders import COMPRESSAI, CompressAIContender, JointIQContender
    from tools.bench.synthetic_latents import fitted_compressai, fitted_jointiq, make_latents

    image, latents = photograph(size), make_latents(size, CHANNELS, CHANNELS, scale)
    ours = {OURS: model_config(), WAVEFRONT: model_config(scan="wavefront"), LIGHT: model_config(LIGHT_GRDN)}
    entries: dict[str, Contender] = {}
    for name in NAMES:
        if name in ours:
            entries[name] = JointIQContender(fitted_jointiq(ours[name], scale), image, latents)
        else:
            model = fitted_compressai(COMPRESSAI[name], CHANNELS, CHANNELS, scale)
            entries[name] = CompressAIContender(model, image, latents)
    return entries


def interleave(
    entries: Mapping[str, Contender], repeats: int, warm_up: bool, step: Callable[[str], None]
) -> dict[str, Times]:
    """Time all contenders in turn, so that a slow spell of the machine hits each of them.

    ``step``, the progress callback, is called before each encode and decode. Garbage collection stays on, as in use.
    """
    times = {name: Times() for name in entries}
    for turn in range(repeats + warm_up):
        for name, entry in entries.items():
            step(f"{name}: encode")
            encode = entry.encode()
            step(f"{name}: decode")
            decode = entry.decode()
            times[name].coded_bytes = dict(entry.coded_bytes)
            if turn >= warm_up:
                for part, moment in zip(PARTS, (encode, decode.whole, decode.entropy), strict=True):
                    times[name].runs[part].append(moment)
    return times


def summary(times: Mapping[str, Times], size: Size) -> dict[str, Any]:
    """Return the ratios, seconds and rates for ``codec.json``.

    Raises:
        RuntimeError: a contender's rate is outside 0.5 +- 0.1 bpp, so that the times cannot be compared.
    """
    pixels = size[0] * size[1]
    result: dict[str, Any] = {f"{part}_ratio": times[OURS].wall(part) / times[THEIRS].wall(part) for part in PARTS}
    result["processor_time"] = {f"{part}_ratio": times[OURS].cpu(part) / times[THEIRS].cpu(part) for part in PARTS}
    result["goals"] = {f"{part}_ratio": goal for part, goal in GOALS.items()}
    result["contenders"] = {}
    for name, entry in times.items():
        bpp = 8 * entry.coded_bytes["total"] / pixels
        if not BPP_RANGE[0] <= bpp <= BPP_RANGE[1]:
            raise RuntimeError(f"{name} codes to {bpp:.3f} bpp; a fair comparison needs {BPP_RANGE}")
        result["contenders"][name] = {
            "bpp": bpp,
            "bpp_payload": 8 * entry.coded_bytes["payload"] / pixels,
            **{f"{part}_ratio": entry.wall(part) / times[THEIRS].wall(part) for part in PARTS},
            **{f"{part}_seconds": entry.wall(part) for part in PARTS},
            **{f"{part}_processor_seconds": entry.cpu(part) for part in PARTS},
            "runs_seconds": {part: [run.wall for run in entry.runs[part]] for part in PARTS},
        }
    return result


def settings(size: Size, repeats: int) -> dict[str, Any]:
    """Return all that the numbers depend on."""
    import compressai
    import torch

    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compressai": compressai.__version__,
        "image": f"{PHOTOGRAPH}, cut and resized",
        "height": size[0],
        "width": size[1],
        "N": CHANNELS,
        "M": CHANNELS,
        "model": model_config(),
        "light_grdn": LIGHT_GRDN,
        "repeats": repeats,
    }


def compare(size: Size, repeats: int, warm_up: bool, step: Callable[[str], None]) -> dict[str, Any]:
    """Return the whole comparison; see :func:`interleave` for ``step``."""
    from tools.bench.synthetic_latents import find_scale

    step("preparing the models")
    entries = contenders(size, find_scale(CHANNELS, CHANNELS))
    return {**summary(interleave(entries, repeats, warm_up, step), size), "settings": settings(size, repeats)}


def compare_steps(repeats: int, warm_up: bool) -> int:
    """Return how often :func:`compare` calls ``step``."""
    return 1 + 2 * len(NAMES) * (repeats + warm_up)


def profile_codec(size: Size, enhancer: Mapping[str, Any] | None) -> tuple[Sections, Sections]:
    """Profile an encode and a decode of an image of ``size`` (height, width), after one of each to warm up."""
    from jointiq.evaluation.profile import profiled
    from tools.bench.contenders import JointIQContender
    from tools.bench.synthetic_latents import find_scale, fitted_jointiq, make_latents

    scale = find_scale(CHANNELS, CHANNELS)
    model = fitted_jointiq(model_config(enhancer), scale)
    latents = make_latents(size, CHANNELS, CHANNELS, scale)
    contender = JointIQContender(model, photograph(size), latents)
    contender.encode()
    contender.decode()
    with profiled() as encode:
        contender.encode()
    with profiled() as decode:
        contender.decode()
    return encode, decode
