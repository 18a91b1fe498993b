"""Complexity of a study's systems: parameters, multiplications and coding times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jointiq.coding.load import load_model
from jointiq.console import Table, number
from jointiq.evaluation.complexity import complexity
from jointiq.evaluation.metrics import mean
from jointiq.studies.context import Context, Findings

OPTIONS = {"repeats"}
SIZE = (512, 768)


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Compare the parameters, MACs and coding times of every run, of one model each.

    Options: ``repeats``: times are medians of that many codings of one photograph. Without it they are means over the
    measured images of each set and all models of the run.
    """
    repeats = int(options.get("repeats", 0))
    header = ("system", "parameters", "of Q", "MACs a pixel", "of Q", *_time_headers(context, repeats))
    table = Table(f"Costs at {SIZE[1]}x{SIZE[0]} (Q: quality enhancement)", header)
    numbers = {}
    for run in context.scale.runs:
        trained = context.of(run.name)
        if not trained or not run.measure:
            continue
        cost = complexity(load_model(trained[0].checkpoint, context.device), SIZE, repeats)
        enhancer = cost.parts.get("enhancer")
        cells = [
            str(cost.total.parameters),
            str(enhancer.parameters) if enhancer else "0",
            f"{cost.total.macs_per_pixel:.0f}",
            f"{enhancer.macs_per_pixel:.0f}" if enhancer else "0",
        ]
        if repeats:
            cells += [number(seconds, 2) for seconds in (cost.total.encoding_time, cost.total.decoding_time)]
        for images in context.sets if not repeats else ():
            rows = [row for one in trained for row in context.rows(one, images)]
            cells += [number(mean(row.get(key) for row in rows), 2) for key in ("encoding_time", "decoding_time")]
        table.rows.append((run.label, *cells))
        numbers[run.name] = asdict(cost.total)
    return Findings(tables=[table], numbers={"costs": numbers})


def _time_headers(context: Context, repeats: int) -> list[str]:
    if repeats:
        return ["encoding s", "decoding s"]
    return [f"{what} s, {images.name}" for images in context.sets for what in ("encoding", "decoding")]
