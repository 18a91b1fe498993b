"""Lee 2019, Figure 7: the share of the run time that the hybrid model saves. Needs no trained weights."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.console import Table, number, progress_bar
from jointiq.data.sample import photograph
from jointiq.evaluation.plots.rd_plot import OUR_COLOURS, new_figure, save_all
from jointiq.evaluation.profile import profiled
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec
from jointiq.studies.context import Context, Findings, Ours

#: Sections of :mod:`jointiq.evaluation.profile` that belong to the entropy coder, which the paper's times exclude.
_CODER = ("decisions", "rANS", "encoder", "mixture", "latents' checksum")
SYSTEMS = ("base", "hybrid")
OPTIONS = {"size", "repeats", "shrink"}


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Time encoding plus decoding of one photograph with each value's ``base`` and ``hybrid`` model, on the CPU.

    Options: ``size`` (height, width), ``repeats`` (the median counts), ``shrink`` (divides the channels, for a quick
    trial). A value has the two models' configs under ``base`` and ``hybrid``.
    """
    height, width = options.get("size", (512, 768))
    repeats, shrink = int(options.get("repeats", 3)), int(options.get("shrink", 1))
    table = Table(
        f"Seconds for encoding and decoding one image of {width}x{height}",
        ("model", "channels", "whole", "without the coder"),
        left=2,
    )
    findings = Findings(
        tables=[table],
        notes=[
            "Weights are random: what is timed does not depend on them. As in the paper the entropy coder itself is "
            "left out (the column `whole` holds it): times count the networks, with the estimation of the parameters. "
            "The paper estimates them position by position; ours are of the scan that the table names, in integers, on "
            "the CPU."
        ],
    )
    timed: list[tuple[str, float, float]] = []
    values = [value for value in context.scale.values if all(name in value.details for name in SYSTEMS)]
    with progress_bar() as progress:
        bar = progress.add_task("run time", total=len(values) * len(SYSTEMS), note="")
        for value in values:
            seconds = {}
            for name in SYSTEMS:
                config = _shrunk(dict(value.details[name]), shrink)
                progress.update(bar, note=f"{value.name}, {name}")
                whole, networks = _seconds(config, (height, width), repeats)
                seconds[name] = {"whole": whole, "networks": networks}
                channels = ", ".join(f"{key} {config[key]}" for key in ("N", "M", "M1", "M2") if key in config)
                table.rows.append(
                    (f"{value.name}: {name}, {config['scan']}", channels, number(whole, 2), number(networks, 2))
                )
                progress.advance(bar)
            saved = {key: 100 * (1 - seconds["hybrid"][key] / seconds["base"][key]) for key in ("whole", "networks")}
            text = f"{saved['networks']:.2f} % ({saved['whole']:.2f} % with the coder)"
            verdict = _verdict(saved["networks"], value.paper)
            on = f"one photograph, {width}x{height}"
            findings.ours.append(Ours(value.name, text, {"saved_percent": saved, **seconds}, on, "none", verdict))
            timed += [(f"{value.name}\n{name}", seconds[name]["whole"], seconds[name]["networks"]) for name in SYSTEMS]
    findings.figures.append((_figure(context, timed), "Seconds with and without the entropy coder."))
    return findings


def _verdict(saved: float, paper: float | str) -> str:
    if isinstance(paper, str):
        return ""
    return "sign as in the paper" if saved > 0 else "opposite sign"


def _shrunk(config: dict[str, Any], shrink: int) -> dict[str, Any]:
    return {key: max(value // shrink, 1) if key in ("N", "M", "M1", "M2") else value for key, value in config.items()}


def _seconds(config: dict[str, Any], size: tuple[int, int], repeats: int) -> tuple[float, float]:
    """Return the median seconds of encoding plus decoding, in total and without the entropy coder."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    image = photograph(size)
    _round_trip(model, photograph((64, 64)))
    whole, networks = [], []
    for _ in range(repeats):
        began = perf_counter()
        with profiled() as sections:
            _round_trip(model, image)
        whole.append(perf_counter() - began)
        # Sections are in processor time, which on one thread of an idle machine equals wall-clock time.
        coder = sum(spent for name, spent in sections.spent.items() if name.startswith(_CODER))
        networks.append(sum(sections.spent.values()) - coder)
    return statistics.median(whole), statistics.median(networks)


def _round_trip(model: LearnedCodec, image: Any) -> None:
    decode_image(model, encode_image(model, image, estimate=False).data)


def _figure(context: Context, timed: list[tuple[str, float, float]]) -> Path:
    figure = new_figure(6.4, 3.2)
    axes = figure.add_subplot()
    names = [name for name, _, _ in timed]
    axes.barh(names, [networks for _, _, networks in timed], color=OUR_COLOURS[0], label="networks and estimation")
    coder = [max(whole - networks, 0.0) for _, whole, networks in timed]
    axes.barh(names, coder, left=[n for _, _, n in timed], color="#bbbbbb", label="entropy coder")
    axes.invert_yaxis()
    axes.set_xlabel("seconds an image, encoding and decoding")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return save_all(figure, context.output / "run_time")[0]
