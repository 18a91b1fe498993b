"""Tables of points."""

from __future__ import annotations

import csv
import io

import pytest

from jointiq.evaluation.rd import RDCurve
from jointiq.evaluation.tables import points_csv, points_table, rd_table

PLAIN = RDCurve("plain", {"bpp": (0.1, 0.2), "psnr-rgb": (30.0, 33.0)}, parameter=(1, 2))
RICH = RDCurve(
    "rich",
    {"bpp": (0.1,), "psnr-rgb": (31.0,), "ms-ssim-rgb": (0.99,), "parameters": (1234567.0,), "macs_per_pixel": (2e5,)},
    parameter=("a",),
)


def test_columns_are_those_that_any_curve_has() -> None:
    table = points_table("points", [PLAIN, RICH])
    assert table.header == ("curve", "bpp", "PSNR dB", "MS-SSIM", "dB", "parameters", "MACs/pixel")
    assert table.rows[0] == ("plain", "0.1000", "30.00", "–", "–", "–", "–")
    assert table.rows[2] == ("rich", "0.1000", "31.00", "0.9900", "20.00", "1,234,567", "200,000")


def test_costs_stand_in_the_table_of_a_curve_that_has_them() -> None:
    assert rd_table(RICH).header[-2:] == ("parameters", "MACs/pixel")
    assert "parameters" not in rd_table(PLAIN).header


def test_points_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(points_csv([("anchor", PLAIN), ("model", RICH)]))))
    assert [(row["curve"], row["kind"], float(row["bpp"])) for row in rows] == [
        ("plain", "anchor", 0.1), ("plain", "anchor", 0.2), ("rich", "model", 0.1)]  # fmt: skip
    assert rows[0]["ms-ssim-rgb"] == "" and float(rows[2]["ms-ssim-rgb-db"]) == pytest.approx(20)
