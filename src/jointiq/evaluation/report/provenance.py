"""Provenance of a report's numbers, and caveats for quoting them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jointiq.console import NOTHING, Table
from jointiq.evaluation.bd_rate import MIN_POINTS
from jointiq.evaluation.report.sources import Source, Sources

#: Published curves of these codecs are known to be scored against another picture than the original.
NOT_AGAINST_RGB = re.compile(r"\b(VTM|HM)\b", re.IGNORECASE)


def reference_of(source: Source) -> str:
    """Return what a curve's quality is measured against."""
    told = source.curve.about.get("quality")
    if told:
        return str(told)
    if any("checkpoint" in row for row in source.curve.images):
        return "against the original 8-bit RGB, mean over images"
    if NOT_AGAINST_RGB.search(source.curve.name):
        return "not against the original RGB"
    return "not recorded"


def provenance_table(sources: Sources) -> Table:
    """Return a table with a row for each curve: kind, maker, reference of the quality, file, points, images."""
    table = Table("Curves", ("curve", "kind", "made by", "quality", "file", "points", "images"), left=5)
    for i, source in enumerate(sources.all):
        if i == len(sources.models):
            table.end_group()
        curve = source.curve
        table.rows.append(
            (
                curve.name,
                "anchor" if source.is_anchor else "model",
                _made_by(source),
                reference_of(source),
                str(source.path),
                str(len(curve)),
                str(len(source.image_names)) if curve.images else NOTHING,
            )
        )
    return table


def details(source: Source) -> dict[str, str]:
    """Return what else an RD file says about its numbers: description, settings, colour space, command, ..."""
    said: dict[str, Any] = {"description": source.curve.description, **source.notes, **source.curve.about}
    if source.curve.parameter:
        said["points"] = source.curve.parameter
    return {key: _text(value) for key, value in said.items() if value not in (None, "", [], {})}


def caveats(sources: Sources) -> list[str]:
    """Return the caveats for a reader, a line each."""
    lines = [
        f"BD-rate: {sources.comparison.method} interpolation of log rate over the range of quality that both curves "
        f"cover, at least {MIN_POINTS} points a curve, never extrapolated. Negative: fewer bits than the anchor at "
        "equal quality.",
        "bpp counts whole files where files were measured. PSNR is the mean over images of each image's PSNR on 8-bit "
        "RGB. MS-SSIM in dB is -10 log10(1 - mean MS-SSIM).",
    ]
    known = [source for source in sources.all if reference_of(source).startswith("not against")]
    if known:
        lines.append(
            f"Not scored against the original RGB, as far as is known: {_names(known)}. Published VTM and HM curves "
            "take PSNR after a conversion to 8-bit YCbCr and back on both sides, which flatters them at high rates."
        )
    unknown = [source for source in sources.all if reference_of(source) == "not recorded"]
    if unknown:
        lines.append(f"What quality is measured against is not recorded in the files of: {_names(unknown)}.")
    derived = [source for source in sources.all if "derived" in source.notes.get("status", "").lower()]
    if derived:
        lines.append(f"Derived from other curves, neither measured nor published: {_names(derived)}.")
    counts = {len(source.image_names) for source in sources.all if source.curve.images}
    if len(counts) > 1:
        lines.append(f"Curves differ in the number of their images ({', '.join(map(str, sorted(counts)))}).")
    few = [source for source in sources.models if len(source.curve) < MIN_POINTS]
    if few:
        lines.append(f"Too few points for a BD-rate: {_names(few)}.")
    lines += [f"No BD-rate: {line}" for line in sources.comparison.left_out]
    return lines


def _made_by(source: Source) -> str:
    version = source.curve.about.get("version")
    if version:
        return str(version)
    if any("checkpoint" in row for row in source.curve.images):
        return "src.evaluate"
    return source.notes.get("status") or NOTHING


def _names(sources: list[Source]) -> str:
    return ", ".join(source.curve.name for source in sources)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value))
    return json.dumps(value) if isinstance(value, Mapping) else str(value)
