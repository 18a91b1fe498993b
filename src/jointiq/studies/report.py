"""Write the results of a study: ``results.json``, its table as Markdown and CSV, ``report.md``, the README's table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from jointiq.console import NOTHING, Table
from jointiq.files import fill_in, write_text
from jointiq.runs.folder import provenance
from jointiq.studies.context import Findings
from jointiq.studies.plan import DEMO, RESULTS, Scale, Study
from jointiq.studies.training import Training

NOT_RUN = "not run"
HEADER = ("", "paper", "ours", "verdict", "scale", "trained on", "measured on", "steps", "device")
BEGIN, END = "<!-- results: written by src.study -->", "<!-- end of results -->"
_OTHER_SETTING = "The paper's numbers are of its own sizes, data and steps; ours are of what the columns say.\n"


def write_results(
    study: Study,
    scale: Scale,
    findings: Findings,
    trained: Sequence[Training],
    trained_on: str,
    device: str,
    output: Path,
    problems: list[str],
) -> list[Path]:
    """Write all results of a study at a scale into ``output``; return the files.

    Args:
        trained: the finished trainings, and shipped models.
        trained_on: the training images, as text.
        device: the device, as text.
        problems: trainings that are not finished, one line each.
    """
    rows = main_rows(scale, findings, trained_on, device)
    made = provenance()
    hours = [one.hours for one in trained if one.job is not None]
    trainings = {"runs": len(hours), "hours": round(sum(hours), 3)} if hours else None
    document = {
        "study": study.name,
        "scale": scale.name,
        "command": f"python -m src.study {study.name} --scale {scale.name}",
        "made_with": {key: made[key] for key in ("git", "python", "packages")},
        "device": device,
        "trained_on": trained_on,
        "table": {"header": list(HEADER), "rows": rows},
        "ours": [
            {"value": one.value, "measured_on": one.measured_on, "verdict": one.verdict, **one.numbers}
            for one in findings.ours
        ],
        "tables": [
            {"title": table.title, "header": list(table.header), "rows": [list(row) for row in table.rows]}
            for table in findings.tables
        ],
        "numbers": findings.numbers,
        "trainings": trainings,
        "not_finished": problems,
    }
    files = [output / RESULTS, output / "table.md", output / "table.csv", output / "report.md"]
    write_text(files[0], json.dumps(document, indent=1, allow_nan=False) + "\n")
    table = main_table(study, scale.name, rows)
    write_text(files[1], table.markdown())
    write_text(files[2], as_csv(table))
    write_text(files[3], _report(study, scale, rows, findings, trained, problems))
    return files


def main_rows(scale: Scale, findings: Findings, trained_on: str, device: str) -> list[list[str]]:
    """Return the rows of a study's table: each value of the paper with each of our results, or as not run."""
    rows = []
    for value in scale.values:
        paper = f"{value.paper:g} {value.unit}".strip() if isinstance(value.paper, int | float) else value.paper
        found = [one for one in findings.ours if one.value == value.name]
        for one in found:
            # A demo only shows that a study runs.
            verdict = NOTHING if scale.name == DEMO else one.verdict
            rows.append(
                [value.name, paper, one.text, verdict, scale.name, trained_on, one.measured_on, one.steps, device]
            )
        if not found:
            rows.append([value.name, paper, NOT_RUN, NOTHING, scale.name, NOTHING, NOTHING, NOTHING, NOTHING])
    return rows


def main_table(study: Study, scale: str, rows: Sequence[Sequence[str]]) -> Table:
    """Return :func:`main_rows` as a table."""
    return Table(f"{study.title}: scale {scale}", HEADER, left=len(HEADER), rows=list(rows))


def as_csv(table: Table) -> str:
    """Return a table as CSV text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([table.header, *table.rows])
    return stream.getvalue()


def write_readme(study: Study) -> Path | None:
    """Write the tables of all scales between the markers of the study's README; return None if it has no markers."""
    path = study.folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    filled = fill_in(text, BEGIN, END, _all_scales(study))
    if filled is None:
        return None
    write_text(path, filled)
    return path


def _all_scales(study: Study) -> str:
    parts = []
    for scale in (name for name in ("gpu", "pilot", "paper") if name in study.scales):
        folder = Path("results") / scale
        if not (study.folder / folder / RESULTS).is_file():
            parts.append(f"Scale `{scale}`: {NOT_RUN}.\n")
            continue
        document = json.loads((study.folder / folder / RESULTS).read_text(encoding="utf-8"))
        parts.append(_body(Table(f"Scale {scale}", HEADER, left=len(HEADER), rows=document["table"]["rows"]), level=3))
        if scale != "paper":
            parts.append(_OTHER_SETTING)
        # Results of an earlier version do not say it.
        if trainings := document.get("trainings"):
            hours = trainings["hours"]
            time = f"{hours:.1f} hours" if hours >= 2 else f"{60 * hours:.0f} minutes"
            parts.append(f"{trainings['runs']} trainings, {time} together.\n")
        if document["not_finished"]:
            parts.append(f"Not finished: {len(document['not_finished'])} trainings.\n")
        parts += [f"![{figure.stem}]({figure})\n" for figure in _figures(study, folder)]
        parts.append(f"All tables, intervals and what was done: [{folder / 'report.md'}]({folder / 'report.md'})\n")
    return "\n".join(parts)


def _figures(study: Study, folder: Path) -> list[Path]:
    return [folder / path.name for path in sorted((study.folder / folder).glob("*.png"))]


def _body(table: Table, level: int) -> str:
    return "#" * (level - 1) + table.markdown()


def _report(
    study: Study,
    scale: Scale,
    rows: list[list[str]],
    findings: Findings,
    trained: Sequence[Training],
    problems: Sequence[str],
) -> str:
    parts = [f"# {study.title}: scale {scale.name}\n", f"Source: {study.source}\n", f"{study.shows}\n"]
    parts.append(f"Made by `python -m src.study {study.name} --scale {scale.name}` (data folders: docs/studies.md).\n")
    if scale.note:
        parts.append(f"{scale.note}\n")
    parts.append(_body(Table("Paper and ours", HEADER, left=len(HEADER), rows=list(rows)), level=2))
    if scale.name != "paper":
        parts.append(_OTHER_SETTING)
    parts += [f"{note}\n" for note in findings.notes]
    for path, caption in findings.figures:
        parts.append(f"![{caption}]({path.name})\n\n{caption}\n")
    parts += [_body(table, level=2) for table in findings.tables]
    if scale.trains:
        parts.append(_body(_runs(scale, trained), level=2))
    if problems:
        parts += ["## Not finished\n", "\n".join(f"- {line}" for line in problems) + "\n"]
    return "\n".join(parts)


def _runs(scale: Scale, trained: Sequence[Training]) -> Table:
    header = ("run", "lambda", "seeds", "minutes each", "starts from", "python -m src.train ...")
    table = Table("Trainings", header, left=len(header))
    for run in scale.runs:
        if run.shipped is not None:
            continue
        lists = (", ".join(f"{value:g}" for value in values) for values in (run.lmbda, run.seeds))
        hours = [one.hours for one in trained if one.run is run]
        minutes = f"{60 * sum(hours) / len(hours):.1f}" if hours else NOTHING
        table.rows.append((run.label, *lists, minutes, run.init_from or NOTHING, f"`{' '.join(run.overrides)}`"))
    return table
