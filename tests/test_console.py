"""Tables fit the terminal and are whole elsewhere; what users name is never markup."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from jointiq import console
from jointiq.console import Table, progress_bar
from jointiq.evaluation.bd_rate import bd_rate
from jointiq.evaluation.comparison import CurveFile, compare_pairs
from jointiq.evaluation.comparison import tables as comparison_tables
from jointiq.evaluation.complexity import complexity, complexity_table
from jointiq.evaluation.rd import RDCurve, curve_from_rows
from jointiq.evaluation.tables import bd_table, points_table, rd_table
from jointiq.models import build_model

COSTS = {"parameters": 25_123_456, "macs_per_pixel": 1_234_567, "encoding_memory": 2**34, "decoding_memory": 2**33}


def in_terminal(table: Table, width: int = 80) -> str:
    stream = io.StringIO()
    table.print(Console(file=stream, width=width, force_terminal=True))
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def piped(table: Table) -> str:
    stream = io.StringIO()
    table.print(Console(file=stream, width=80))
    return stream.getvalue()


def test_latex() -> None:
    table = Table("Two\nlines", ("my_model & co", "BD-rate %"), rows=[("50 % {a}", "-3.40"), (r"~^\x", "–")])
    table.breaks = {1, 2}
    assert table.latex().splitlines() == [
        "% Two lines", r"\begin{tabular}{lr}", r"\toprule", r"my\_model \& co & BD-rate \% \\", r"\midrule",
        r"50 \% \{a\} & $-$3.40 \\", r"\midrule", r"\textasciitilde{}\textasciicircum{}/x & -- \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def curve(name: str, folder: str = "results/studies/table2/run") -> RDCurve:
    """Four points of long checkpoints, with every column that an evaluation can have."""
    numbers = ("bpp_payload", "bpp_exact", "bpp_estimate", "psnr_mid", "encoding_time", "decoding_time")
    points = []
    for i in range(4):
        row = {"image": "kodim01.png", "bpp": 0.1 * 2**i, "psnr": 28.0 + 3 * i, "ms_ssim": 0.9 + 0.02 * i}
        points.append((f"{folder}_{i}/lmbda_{i}/checkpoints/last.ckpt", [row | dict.fromkeys(numbers, 123.456)]))
    made = curve_from_rows(name, points)
    return RDCurve(name, {**made.results, **{key: (value,) * 4 for key, value in COSTS.items()}}, "", made.parameter)


def tables() -> dict[str, Table]:
    ours, other = curve("JointIQ-Net, full GRDN, 8 rates"), curve("HEVC intra (HEIF) 4:4:4, x265 slow")
    rates = [bd_rate(other, ours, metric) for metric in ("psnr", "ms-ssim")]
    models = [CurveFile(Path(f"{name}.json"), ours) for name in ("jointiq", "ablation_no_gc_mprm")]
    by_metric = comparison_tables(compare_pairs(models, [CurveFile(Path("anchor.json"), other)]))
    torch.manual_seed(0)
    model = build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": None})
    return {
        "evaluate": rd_table(ours),
        "anchors": points_table("mean over 24 images", [other, ours]),
        "bdrate": bd_table(rates),
        "bdrate of folders": by_metric[0],
        "Table 2": by_metric[-1],
        "complexity": complexity_table(
            complexity(model, (64, 64), repeats=1), "results/a/checkpoints/last.ckpt, 64x64"
        ),
    }


@pytest.mark.parametrize("name", ["evaluate", "anchors", "bdrate", "bdrate of folders", "Table 2", "complexity"])
def test_tables_fit_80_columns_and_are_whole_where_they_are_piped(name: str) -> None:
    table = tables()[name]
    shown = in_terminal(table)
    assert max(map(len, shown.splitlines())) <= 80
    left_out = re.search(r"too narrow for: (.*)", shown, re.DOTALL)
    names = " ".join(left_out[1].split()).split(", ") if left_out else []
    assert set(names) <= set(table.optional) and (name != "complexity" or not names)
    assert not {"bpp", "PSNR dB", "BD-rate %", "paper", "ours", "MACs / pixel"} & set(names)
    for i, heading in enumerate(table.header):
        if i >= table.left and heading not in names:
            assert all(re.search(rf"(?<!\S){re.escape(row[i])}(?!\S)", shown) for row in table.rows)
    whole = piped(table)
    assert "too narrow" not in whole
    lines = [line.split() for line in whole.splitlines()]
    for cells in (table.header, *table.rows):
        assert " ".join(cells).split() in lines


def test_columns_go_in_their_order_and_only_as_many_as_must() -> None:
    table = Table("t", ("name", "a", "b", "c"), rows=[("x" * 90, "1" * 20, "2" * 20, "3" * 20)], optional=("b", "a"))
    assert "too narrow for: b\n" in in_terminal(table, 82)
    shown = in_terminal(table, 59)
    assert "too narrow for: b, a\n" in shown and "3" * 20 in shown
    assert shown.count("x") == 90  # folded, not cut
    assert "too narrow" not in in_terminal(table, 83)


def test_names_are_not_markup() -> None:
    table = Table("[red]title[/red]", ("[b]head",), rows=[("[bold]a.png",), ("[/x] :smile:" + 30 * ".",)])
    for shown in (in_terminal(table), piped(table)):
        assert all(text in shown for text in ("[red]title[/red]", "[b]head", "[bold]a.png", "[/x] :smile:"))


def test_notes_of_a_progress_bar_are_not_markup() -> None:
    stream = io.StringIO()
    progress = progress_bar()
    progress.add_task("images", total=2, note="[bold]a.png [/x]")
    Console(file=stream, width=120).print(progress.get_renderable())
    assert "[bold]a.png [/x]" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, [1, 2, 3]), (30.0, [3])])
def test_a_bar_in_a_log_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, lines: list[int]
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", seconds)
    with progress_bar() as progress:
        task = progress.add_task("images", total=3, note="")
        for image in ("a", "b", "c"):
            progress.update(task, note=image)  # nothing new is done
            progress.advance(task)
    shown = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [f"{done}/3" in line for done, line in zip(lines, shown, strict=True)] == [True] * len(lines)


def test_markdown_keeps_cells_apart_and_opens_no_tag() -> None:
    text = Table("a <b>", ("x|y", "n"), rows=[("a|b.png", "1"), ("<img src=x>", "2")]).markdown()
    assert text.splitlines() == [
        "# a &lt;b>", "", r"| x\|y | n |", "| :-- | --: |", r"| a\|b.png | 1 |", "| &lt;img src=x> | 2 |"]  # fmt: skip
