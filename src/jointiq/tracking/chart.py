"""The chart of rate-distortion curves for W&B, in Vega-Lite: models in colour, anchors grey behind them."""

from __future__ import annotations

from typing import Any

from jointiq.evaluation.plots.rd_plot import ANCHOR_GREYS, OUR_COLOURS

NAME = "jointiq-rd-curve"
DISPLAY_NAME = "Rate-distortion curves with anchors"


def rd_chart_spec() -> dict[str, Any]:
    """A Vega-Lite specification over the tables of :mod:`jointiq.tracking.tables`.

    W&B puts in the rows of all runs that are shown (``data.name``), and the columns and texts that a panel names for
    ``${field:...}`` and ``${string:...}``. The points of an anchor, which every run of a sweep holds, are drawn once.
    """
    curve, kind, point, x, y = (f"${{field:{name}}}" for name in ("curve", "kind", "point", "x", "y"))
    axes = {
        "x": {"field": x, "type": "quantitative", "title": "rate (bits per pixel)", "scale": {"zero": False}},
        "y": {"field": y, "type": "quantitative", "title": "${string:quality}", "scale": {"zero": False}},
    }
    tooltip = [{"field": field, "type": "nominal"} for field in (curve, point)]
    tooltip += [{"field": field, "type": "quantitative", "format": ".4f"} for field in (x, y)]
    colour = {"field": curve, "type": "nominal", "scale": {"range": list(OUR_COLOURS)}, "title": "models"}
    dash = {"field": curve, "type": "nominal", "title": "anchors"}

    def layer(of: str, mark: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
        return {
            "transform": [{"filter": f"datum['{kind}'] === '{of}'"}],
            "mark": mark,
            "encoding": {**axes, **encoding, "tooltip": tooltip, "detail": {"field": curve, "type": "nominal"}},
        }

    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"name": "wandb"},
        "title": "${string:title}",
        "transform": [
            {"filter": f"isValid(datum['{x}']) && isValid(datum['{y}'])"},
            {"aggregate": [{"op": "count", "as": "rows"}], "groupby": [curve, kind, point, x, y]},
        ],
        "layer": [
            layer("anchor", {"type": "line", "strokeWidth": 1, "color": ANCHOR_GREYS[0]}, {"strokeDash": dash}),
            layer("model", {"type": "line", "strokeWidth": 2, "point": {"size": 50}}, {"color": colour}),
        ],
    }
