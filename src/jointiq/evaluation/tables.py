"""Tables of rate-distortion points and of BD-rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jointiq.console import NOTHING, Table, number
from jointiq.evaluation.bd_rate import LITTLE_OVERLAP, BDRate
from jointiq.evaluation.metrics import ms_ssim_db
from jointiq.evaluation.rd import MS_SSIM, PSNR, RDCurve, rows_as_csv
from jointiq.evaluation.short_names import short_names

MS_SSIM_DB = f"{MS_SSIM}-db"
#: What a marked BD-rate means.
MARKED = f"* the curves share less than {LITTLE_OVERLAP:.0%} of their range of quality: hardly comparable"

#: Key in an RD file's ``results`` -> heading and digits, in the order of the tables.
COLUMNS = {
    "bpp": ("bpp", 4),
    "bpp-payload": ("payload", 4),
    "bpp-estimate": ("estimate", 4),
    PSNR: ("PSNR dB", 2),
    "psnr-rgb-mid": ("before Q", 2),
    MS_SSIM: ("MS-SSIM", 4),
    MS_SSIM_DB: ("dB", 2),
    "encoding_time": ("enc s", 2),
    "decoding_time": ("dec s", 2),
}
#: The same for a model's complexity, where files have it: count, count, bytes, bytes.
COSTS = {
    "parameters": "parameters",
    "macs_per_pixel": "MACs/pixel",
    "encoding_memory": "enc bytes",
    "decoding_memory": "dec bytes",
}
#: Columns that a narrow terminal leaves out, in this order.
OPTIONAL = (*reversed(COSTS.values()), "before Q", "estimate", "payload", "MS-SSIM", "dec s", "enc s")


def with_db(curve: RDCurve) -> dict[str, tuple[float, ...]]:
    """Return the results of a curve, with MS-SSIM in dB (key ``ms-ssim-rgb-db``) where there is MS-SSIM."""
    results = dict(curve.results)
    if MS_SSIM in results:
        results[MS_SSIM_DB] = tuple(ms_ssim_db(value) for value in results[MS_SSIM])
    return results


def rd_table(curve: RDCurve) -> Table:
    """Return a table with a row for each RD point: rates, quality, seconds per image, and complexity where known."""
    costs = [key for key in COSTS if key in curve.results]
    table = Table(
        f"{curve.name}: mean over {len({row.get('image') for row in curve.images})} images",
        ("point", *(heading for heading, _ in COLUMNS.values()), *(COSTS[key] for key in costs)),
        optional=OPTIONAL,
        whole=True,
    )
    results = with_db(curve)
    for i, name in enumerate(short_names([str(parameter) for parameter in curve.parameter])):
        table.rows.append((name, *_cells(results, i, [*COLUMNS, *costs])))
    return table


def points_table(title: str, curves: Sequence[RDCurve]) -> Table:
    """Return a table of the RD points of several curves, with all columns that any of them has."""
    every = [with_db(curve) for curve in curves]
    keys = [key for key in (*COLUMNS, *COSTS) if any(key in results for results in every)]
    table = Table(title, ("curve", *(COSTS.get(key) or COLUMNS[key][0] for key in keys)), optional=OPTIONAL)
    for curve, results in zip(curves, every, strict=True):
        table.rows += [(curve.name, *_cells(results, i, keys)) for i in range(len(curve))]
        table.end_group()
    return table


def _cells(results: Mapping[str, Sequence[float]], i: int, keys: Sequence[str]) -> list[str]:
    def text(key: str) -> str:
        if key not in results:
            return NOTHING
        return f"{results[key][i]:,.0f}" if key in COSTS else number(results[key][i], COLUMNS[key][1])

    return [text(key) for key in keys]


def points_csv(curves: Sequence[tuple[str, RDCurve]]) -> str:
    """Return the RD points of curves, given with their kinds (model, anchor), as CSV text with a header."""
    rows: list[dict[str, object]] = []
    for kind, curve in curves:
        results = with_db(curve)
        rows += [
            {"curve": curve.name, "kind": kind, **{key: values[i] for key, values in results.items()}}
            for i in range(len(curve))
        ]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return rows_as_csv([{key: row.get(key) for key in keys} for row in rows])


def bd_percent(rate: BDRate, sign: bool = True) -> str:
    """Return a BD-rate for a table, marked where the curves hardly overlap (:data:`MARKED` says how)."""
    return number(rate.percent, 2, sign) + ("*" if rate.overlap < LITTLE_OVERLAP else "")


def bd_table(rates: Sequence[BDRate]) -> Table:
    """Return a table with a row for each BD-rate, with everything needed to quote it."""
    table = Table(
        "BD-rate (negative: fewer bits than the anchor at equal quality)",
        ("anchor", "test", "metric", "method", "BD-rate %", "overlap dB", "of range", "points"),
        left=4,
        optional=("method", "points", "of range", "overlap dB"),
    )
    for rate in rates:
        table.rows.append(
            (
                rate.anchor,
                rate.test,
                rate.metric,
                rate.method,
                bd_percent(rate),
                f"{rate.low:.2f} to {rate.high:.2f}",
                f"{100 * rate.overlap:.0f} %",
                f"{rate.anchor_points} / {rate.test_points}",
            )
        )
    return table
