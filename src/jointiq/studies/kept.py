"""Tables of the project's own measurements: the models of ``weights/`` and the pilot of Table 2.

The numbers are read from the files that ``tools.ship`` and ``src.study`` wrote into the repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jointiq.coding import shipped
from jointiq.console import NOTHING, Table, number
from jointiq.evaluation.comparison import LABELS, RANGE_HEADER
from jointiq.evaluation.metrics import ms_ssim_db
from jointiq.studies.plan import EXPERIMENTS, RESULTS, Value, read_study

_SCALE = "pilot"
_NOT_RUN = "not run"


def kept_tables() -> list[Table]:
    """Return the tables; empty where the repository's result files are missing."""
    made = (_shipped_points(), *_shipped_against_anchors(), _table_2())
    return [table for table in made if table is not None]


def _shipped_points() -> Table | None:
    models = shipped.shipped_models()
    if not models:
        return None
    test = json.loads((shipped.WEIGHTS / shipped.INDEX).read_text(encoding="utf-8"))["test"]
    table = Table(
        f"The models of weights/ on {test['name']} ({test['images']} images)",
        ("model", "quality", "bpp", "PSNR dB", "MS-SSIM dB"),
    )
    for model in models:
        for point in model.facts["measured"]:
            psnr, ms_ssim = number(point["psnr"], 2), number(ms_ssim_db(point["ms_ssim"]), 2)
            table.rows.append((model.name, f"{point['quality']:g}", number(point["bpp"], 4), psnr, ms_ssim))
    return table


def _shipped_against_anchors() -> list[Table]:
    """Return a table for each set of images."""
    kept = _read("models")
    if kept is None:
        return []
    values, ours = kept
    tables: dict[str, Table] = {}
    # What could not be compared has no number.
    for one in (one for one in ours if "percent" in one):
        title = (
            f"The models of weights/: BD-rate by {LABELS[one['metric']]}, {one['method']} (negative: fewer bits than "
            f"the anchor) on {_set(one)}"
        )
        table = tables.setdefault(title, Table(title, ("anchor", "paper %", "BD-rate %", *RANGE_HEADER)))
        # The study counts saved bits as positive.
        paper = values[one["value"]].paper
        rate = number(-one["percent"], 2, sign=True)
        paper_rate = number(-paper, 2, sign=True) if isinstance(paper, float | int) else NOTHING
        overlap = f"{one['low']:.2f} to {one['high']:.2f}"
        points = f"{one['anchor_points']} / {one['test_points']}"
        table.rows.append((one["anchor"], paper_rate, rate, overlap, f"{100 * one['overlap']:.0f} %", points))
    return list(tables.values())


def _table_2() -> Table | None:
    kept = _read("table2")
    if kept is None:
        return None
    values, ours = kept
    sets = list(dict.fromkeys(one["measured_on"] for one in ours))
    table = Table(
        f"Table 2, {_SCALE}: more bits (%) without an element, small networks [95 % interval]",
        ("Models", "paper", *(_set({"measured_on": name}) for name in sets)),
    )
    for value in values.values():
        paper = f"{value.paper:.2f}" if isinstance(value.paper, float | int) else NOTHING
        found = {one["measured_on"]: one for one in ours if one["value"] == value.name}
        cells = [_with_interval(found[name]) if name in found else _NOT_RUN for name in sets]
        table.rows.append((value.name, paper, *cells))
    return table


def _read(study: str) -> tuple[dict[str, Value], list[dict[str, Any]]] | None:
    """Return the values of a study by name, and our results; None where it has not been run."""
    file = EXPERIMENTS / study / "results" / _SCALE / RESULTS
    if not file.is_file():
        return None
    ours: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["ours"]
    return {value.name: value for value in read_study(study).at(_SCALE).values}, ours


def _set(one: Mapping[str, Any]) -> str:
    """Return the images that a number was measured on, without their hash."""
    return f"{one['measured_on'].rpartition(',')[0]})"


def _with_interval(one: Mapping[str, Any]) -> str:
    return f"{one['mean']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
