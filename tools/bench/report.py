"""Tables and the figure of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jointiq.console import Table, number
from jointiq.evaluation.plots.rd_plot import OUR_COLOURS, save
from jointiq.evaluation.stopwatch import Sections
from tools.bench.codec import NAMES, PARTS

_LABELS = {"encode": "encode", "decode": "decode", "entropy_decode": "latents"}


def comparison_table(result: Mapping[str, Any]) -> Table:
    """Return the seconds of all contenders, ratios to mbt2018, and the goals; the rates where there is room."""
    settings = result["settings"]
    title = (
        f"{settings['width']}x{settings['height']}, N = M = {settings['N']}, {settings['threads']} thread, "
        f"median of {settings['repeats']}, {settings['processor']}: seconds of encode, decode and its part from bytes "
        "to latents, and ratios to mbt2018"
    )
    header = ["codec", "bpp"]
    for part in PARTS:
        header += [_LABELS[part], "ratio"]
    table = Table(title, header, optional=["bpp"], whole=True)
    for name, entry in result["contenders"].items():
        row = [NAMES[name], number(entry["bpp"], 3)]
        for part in PARTS:
            row += [number(entry[f"{part}_seconds"], 2), number(entry[f"{part}_ratio"], 3)]
        table.rows.append(row)
    table.end_group()
    for label, values in (
        ("JointIQ-Net, goal", result["goals"]),
        ("JointIQ-Net, CPU time", result["processor_time"]),
    ):
        row = [label, ""]
        for part in PARTS:
            row += ["", number(values[f"{part}_ratio"], 3)]
        table.rows.append(row)
    return table


def scaling_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Time and memory against size."""
    header = ["size", "bpp"]
    for action in ("encode", "decode"):
        header += [f"{action} s", "s / MP", "peak GiB", "GiB / MP"]
    table = Table("JointIQ-Net against image size (peak: whole process; per MP: what the image adds)", header)
    for entry in entries:
        row = [f"{entry['width']}x{entry['height']}", number(entry["bpp"], 3)]
        for action in ("encode", "decode"):
            row += [
                number(entry[f"{action}_seconds"], 2),
                number(entry[f"{action}_seconds_per_megapixel"], 2),
                number(entry[f"{action}_peak_memory_bytes"] / 2**30, 2),
                number(entry[f"{action}_memory_bytes_per_megapixel"] / 2**30, 2),
            ]
        table.rows.append(row)
    return table


def profile_table(title: str, sections: Sections) -> Table:
    """Return the processor time of each section, longest first."""
    total = sum(sections.spent.values())
    table = Table(f"{title}: {total:.2f} s of processor time", ("section", "s", "%", "calls"))
    for name, seconds in sorted(sections.spent.items(), key=lambda item: -item[1]):
        table.rows.append((name, number(seconds, 3), number(100 * seconds / total, 1), str(sections.calls[name])))
    return table


def scaling_plot(entries: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Plot seconds and memory per megapixel against size: flat lines mean cost in proportion to size."""
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    names = [f"{entry['width']}x{entry['height']}" for entry in entries]
    for axes, key, unit, label in zip(
        figure.subplots(1, 2),
        ("seconds_per_megapixel", "memory_bytes_per_megapixel"),
        (1, 2**30),
        ("seconds per megapixel", "memory the image adds, GiB per megapixel"),
        strict=True,
    ):
        for action, colour, marker in (("encode", OUR_COLOURS[0], "o"), ("decode", OUR_COLOURS[1], "s")):
            values = [entry[f"{action}_{key}"] / unit for entry in entries]
            sizes = [entry["megapixels"] for entry in entries]
            axes.plot(sizes, values, color=colour, marker=marker, markersize=5, linewidth=1.8, label=action)
        axes.set_xscale("log")
        axes.set_xticks([entry["megapixels"] for entry in entries], names, rotation=40, ha="right")
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_title(label, loc="left", fontsize=10)
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(frameon=False, fontsize=9)
    return save(figure, path)
