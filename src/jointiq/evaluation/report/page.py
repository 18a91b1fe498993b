"""The page itself: sections put into ``assets/page.html`` together with its style and scripts."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from jointiq.console import Table
from jointiq.evaluation.comparison import tables
from jointiq.evaluation.plots.rd_plot import rd_figure
from jointiq.evaluation.rd import RDCurve
from jointiq.evaluation.report.gallery import Gallery, Packing
from jointiq.evaluation.report.provenance import caveats, details, provenance_table
from jointiq.evaluation.report.sources import Source, Sources
from jointiq.evaluation.report.svg import inline_svg
from jointiq.evaluation.short_names import short_names
from jointiq.evaluation.tables import points_table

ASSETS = Path(__file__).resolve().parent / "assets"
PLOTS = {"psnr": "PSNR", "ms-ssim": "MS-SSIM in dB"}
#: More sentences than this are folded away.
_LONG = 8


def render(title: str, sources: Sources, pictures: Gallery, packing: Packing) -> str:
    """Give the whole page as text."""
    parts = {
        "title": html.escape(title),
        "summary": _summary(sources),
        "plots": _plots(sources),
        "bdrates": _bdrates(sources),
        "points": _points(sources),
        "caveats": _list([*caveats(sources), *pictures.problems]),
        "provenance": table_html(provenance_table(sources)) + "".join(map(_details, sources.all)),
        "viewer_note": html.escape(_viewer_note(pictures, packing)),
        "data": script_json(page_data(sources, pictures)),
        "pictures": "\n".join(
            f'<script type="text/plain" id="picture-{i}" data-media="{picture.media}">{picture.text}</script>'
            for i, picture in enumerate(pictures.pictures)
        ),
        "style": _asset("style.css"),
        "script": "\n".join(_asset(name) for name in ("data.js", "scatter.js", "viewer.js")),
    }
    return Template(_asset("page.html")).substitute(parts)


def page_data(sources: Sources, pictures: Gallery) -> dict[str, Any]:
    """Give what the scripts need: curves with their rows by image, and the images."""
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
    """Name the setting or checkpoint that made each row."""
    rows: Sequence[Any] = source.curve.images
    knob = source.curve.about.get("knob", "setting")
    checkpoints = short_names([str(row.get("checkpoint", "")) for row in rows])
    return [
        f"{knob} {row['setting']:g}" if "setting" in row else name for row, name in zip(rows, checkpoints, strict=True)
    ]


def script_json(value: object) -> str:
    """Give ``value`` as JSON that can stand inside a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def table_html(table: Table) -> str:
    """Give a table as HTML, its title as the caption, every text escaped."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=left' if i < table.left else ''}>{html.escape(text)}</{tag}>"
            for i, text in enumerate(texts)
        )

    groups = len(table.breaks) < len(table.rows) / 2  # lines around single rows would only be in the way
    lines = []
    for i, row in enumerate(table.rows, start=1):
        end = " class=end" if groups and i in table.breaks else ""
        lines.append(f"<tr{end}>{cells('td', row)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(table.title)}"><table>'
        f"<caption>{html.escape(table.title)}</caption>"
        f"<thead><tr>{cells('th', table.header)}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _summary(sources: Sources) -> str:
    images = {name for source in sources.models for name in source.image_names}
    words = [_count(len(sources.models), "model curve"), _count(len(sources.anchors), "anchor")]
    return html.escape(", ".join(words + ([_count(len(images), "image")] if images else [])))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _plots(sources: Sources) -> str:
    ours, theirs = curves(sources)
    figures = []
    for metric, name in PLOTS.items():
        figure = rd_figure(ours, theirs, metric)
        title = f"Rate-distortion curves, {name}"
        if figure.axes[0].lines:
            drawn = inline_svg(figure, f"{metric}-", f"{title}; the numbers are in the table of points")
            figures.append(f"<figure>{drawn}<figcaption>{title}</figcaption></figure>")
    return "".join(figures)


def curves(sources: Sources) -> tuple[list[RDCurve], list[RDCurve]]:
    """Give the curves of models and of anchors."""
    return [source.curve for source in sources.models], [source.curve for source in sources.anchors]


def _bdrates(sources: Sources) -> str:
    laid_out = tables(sources.comparison)
    if laid_out:
        return "".join(map(table_html, laid_out))
    return "<p>None can be computed; the reasons are among the caveats.</p>"


def _points(sources: Sources) -> str:
    ours, theirs = curves(sources)
    text = table_html(points_table("Models", ours))
    if theirs:
        folded = table_html(points_table("Anchors", theirs))
        text += f"<details><summary>points of the anchors ({len(theirs)} curves)</summary>{folded}</details>"
    return text


def _details(source: Source) -> str:
    rows = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in details(source).items()
    )
    return f"<details><summary>{html.escape(source.curve.name)}</summary><dl>{rows}</dl></details>" if rows else ""


def _list(lines: Sequence[str]) -> str:
    items = [f"<li>{html.escape(line)}</li>" for line in lines]
    folded = items[_LONG:]
    text = f"<ul>{''.join(items[:_LONG])}</ul>"
    if folded:
        text += f"<details><summary>{len(folded)} more</summary><ul>{''.join(folded)}</ul></details>"
    return text


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
