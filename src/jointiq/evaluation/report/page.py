"""Render the report's page: the Jinja2 template ``assets/page.html`` with its style and scripts inside."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined

from jointiq.evaluation.comparison import LABELS, tables
from jointiq.evaluation.plots.rd_plot import rd_figure
from jointiq.evaluation.rd import RDCurve
from jointiq.evaluation.report.gallery import Gallery, Packing
from jointiq.evaluation.report.provenance import caveats, details, provenance_table
from jointiq.evaluation.report.sources import Source, Sources
from jointiq.evaluation.short_names import short_names
from jointiq.evaluation.tables import points_table

ASSETS = Path(__file__).resolve().parent / "assets"
#: Caveats beyond this number are collapsed.
_SHOWN = 8


def render(title: str, sources: Sources, pictures: Gallery, packing: Packing) -> str:
    """Return the whole page as text."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    ours, theirs = curves(sources)
    return environment.from_string(_asset("page.html")).render(
        title=title,
        sources=sources,
        pictures=pictures,
        summary=_summary(sources),
        plots=_plots(sources),
        bdrates=tables(sources.comparison),
        models=points_table("Models", ours),
        anchors=points_table("Anchors", theirs),
        caveats=[*caveats(sources), *pictures.problems],
        shown=_SHOWN,
        provenance=provenance_table(sources),
        details=details,
        viewer_note=_viewer_note(pictures, packing),
        data=script_json(page_data(sources, pictures)),
        style=_asset("style.css"),
        script="\n".join(_asset(name) for name in ("data.js", "scatter.js", "viewer.js")),
    )


def page_data(sources: Sources, pictures: Gallery) -> dict[str, Any]:
    """Return the data of the scripts: curves with their rows by image, and the images."""
    names = list(dict.fromkeys(name for source in sources.all for name in source.image_names))
    curves = []
    for i, source in enumerate(sources.all):
        points = _point_names(source)
        rows = [
            {
                "image": names.index(str(row["image"])),
                "bpp": row["bpp"],
                "psnr": row["psnr"],
                "ms_ssim": row.get("ms_ssim"),
                "bytes": row.get("bytes"),
                "point": points[j],
                "picture": pictures.shown.get((i, j)),
            }
            for j, row in enumerate(source.curve.images)
            if {"image", "bpp", "psnr"} <= row.keys()
        ]
        if rows:
            curves.append({"name": source.curve.name, "anchor": source.is_anchor, "rows": rows})
    images = []
    for name in names:
        original = pictures.originals.get(name)
        shown = {"size": [original.width, original.height], "shown": original.shown} if original else {}
        images.append({"name": name, "picture": original.picture if original else None, **shown})
    return {"curves": curves, "images": images}


def _point_names(source: Source) -> list[str]:
    """Return the setting or checkpoint of each row."""
    rows: Sequence[Any] = source.curve.images
    knob = source.curve.about.get("knob", "setting")
    checkpoints = short_names([str(row.get("checkpoint", "")) for row in rows])
    return [
        f"{knob} {row['setting']:g}" if "setting" in row else name for row, name in zip(rows, checkpoints, strict=True)
    ]


def script_json(value: object) -> str:
    """Return ``value`` as JSON that is safe inside a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _summary(sources: Sources) -> str:
    images = {name for source in sources.models for name in source.image_names}
    words = [_count(len(sources.models), "model curve"), _count(len(sources.anchors), "anchor")]
    return ", ".join(words + ([_count(len(images), "image")] if images else []))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _plots(sources: Sources) -> list[dict[str, str]]:
    """Return title and data URL (SVG) of each plot that is not empty."""
    ours, theirs = curves(sources)
    plots = []
    for metric, name in LABELS.items():
        figure = rd_figure(ours, theirs, metric)
        if figure.axes[0].lines:
            stream = io.BytesIO()
            with matplotlib.rc_context({"svg.hashsalt": metric}):
                figure.savefig(stream, format="svg", metadata={"Date": None})
            drawn = base64.b64encode(stream.getvalue()).decode("ascii")
            address = f"data:image/svg+xml;base64,{drawn}"
            plots.append({"title": f"Rate-distortion curves, {name}", "address": address})
    return plots


def curves(sources: Sources) -> tuple[list[RDCurve], list[RDCurve]]:
    """Return the curves of models and of anchors."""
    return [source.curve for source in sources.models], [source.curve for source in sources.anchors]


def _viewer_note(pictures: Gallery, packing: Packing) -> str:
    if not pictures.pictures:
        return (
            "No decoded pictures were kept. Evaluate with pictures=DIR (src.evaluate and src.anchors), then make the "
            "report again with --images DIR, the folder of the originals."
        )
    how = "exactly as decoded" if packing.kind == "png" else "as JPEG of quality 95, for looking only"
    cut = ""
    if any(image.shown[2:] != (image.width, image.height) for image in pictures.originals.values()):
        cut = f" Of pictures above {packing.max_side} pixels the middle part is shown."
    return f"{len(pictures.pictures)} pictures, {pictures.size / 1e6:.1f} MB, stored {how}.{cut}"


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
