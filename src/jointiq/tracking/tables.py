"""RD points as W&B tables, and a chart of the rate-distortion curves in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jointiq.evaluation.metrics import ms_ssim_db
from jointiq.evaluation.rd import MS_SSIM, PSNR, RDCurve

#: Key of the chart that every training run logs.
CHART = "rd/curve"
#: Columns of the table behind a chart: rate in bits per pixel, PSNR in dB, MS-SSIM linear and in dB. ``kind`` is
#: "model" or "anchor", ``point`` its parameter (a lambda, a quality setting), ``step`` a model's optimizer step.
COLUMNS = ("curve", "kind", "point", "step", "bpp", "psnr", "ms_ssim", "ms_ssim_db")

Row = list[Any]


def table_of(chart: str) -> str:
    """Return the key under which W&B keeps the table behind a chart."""
    return f"{chart}_table"


def rd_row(
    curve: str,
    kind: str,
    point: object,
    step: int | None,
    bpp: float | None,
    psnr: float | None,
    ms_ssim: float | None,
) -> Row:
    """Return the row of one point, with :data:`COLUMNS`."""
    text = "" if point is None else str(point)
    return [curve, kind, text, step, bpp, psnr, ms_ssim, None if ms_ssim is None else ms_ssim_db(ms_ssim)]


def curve_rows(kind: str, curves: Sequence[RDCurve]) -> list[Row]:
    """Return the rows of the points of curves, with :data:`COLUMNS`."""
    rows = []
    for curve in curves:
        missing: tuple[None, ...] = (None,) * len(curve)
        points = curve.parameter or missing
        psnr, ms_ssim = (curve.results.get(key, missing) for key in (PSNR, MS_SSIM))
        rows += [
            rd_row(curve.name, kind, points[i], None, curve.bpp[i], psnr[i], ms_ssim[i]) for i in range(len(curve))
        ]
    return rows


def rd_chart(rows: Sequence[Row], title: str = "Rate-distortion") -> Any:
    """Return W&B's chart of PSNR over rate with a line for each curve, made from a table of ``rows``.

    A workspace draws it over the tables of all runs that it shows.
    """
    import wandb

    table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
    fields = {"step": "bpp", "lineKey": "curve", "lineVal": "psnr"}
    names = {"title": f"{title}: PSNR (dB)", "xname": "rate (bits per pixel)"}
    return wandb.plot_table("wandb/lineseries/v0", table, fields, names)
