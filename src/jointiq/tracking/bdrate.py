"""Log the results of a sweep in W&B as a last run of its group (``job_type=bdrate``): BD-rates, RD points and plots."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from jointiq.errors import UserError
from jointiq.evaluation.bd_rate import METRICS, BDRate
from jointiq.evaluation.comparison import Comparison, table_2
from jointiq.evaluation.rd import RDCurve
from jointiq.tracking.mode import PROJECT, is_offline
from jointiq.tracking.tables import curve_rows, rd_chart

JOB_TYPE = "bdrate"
#: Key of the chart of the compared curves; the runs in training have another one.
CLOSING_CHART = f"{JOB_TYPE}/curve"
#: Columns of the table of BD-rates: percent, dB, dB, share, counts.
RATE_COLUMNS = tuple(field.name for field in fields(BDRate))
#: Columns of the table in the form of the paper's Table 2: percent, by PSNR where no other metric is named.
ABLATION_COLUMNS = ("study", "model", "paper", "ours", "ours_ms_ssim")


def close_sweep(
    record: Path,
    comparison: Comparison,
    models: Sequence[RDCurve],
    anchors: Sequence[RDCurve],
    settings: Mapping[str, Any],
) -> None:
    """Log the results of a sweep as the last run of its group.

    Args:
        record: the sweep's folder, for W&B's own files.
        comparison, models, anchors: see :func:`log_comparison`.
        settings: the resolved ``logger.wandb`` of the runs.

    Raises:
        UserError: W&B does not start.
    """
    kept = {key: settings[key] for key in ("entity", "project", "offline") if settings.get(key) is not None}
    print("W&B run:", log_comparison(settings["group"], record, comparison, models, anchors, **kept), flush=True)


def log_comparison(
    group: str,
    folder: Path,
    comparison: Comparison | None,
    models: Sequence[RDCurve],
    anchors: Sequence[RDCurve],
    project: str = PROJECT,
    offline: bool | None = None,
    **options: Any,
) -> Path:
    """Log a comparison as a finished W&B run.

    Args:
        group: the sweep's group in W&B.
        folder: folder of W&B's own files.
        comparison: the BD-rates; None: there are none.
        models, anchors: the curves.
        project: the run's project.
        offline: see :func:`jointiq.tracking.mode.is_offline`.
        options: further arguments of ``wandb.init``.

    Returns:
        The folder of the run's files.

    Raises:
        ConfigError: a mode or project that W&B does not know.
        UserError: W&B does not start.
    """
    import wandb

    if is_offline(project, offline):
        options["mode"] = "offline"
    else:
        options["resume"] = "allow"
    folder.mkdir(parents=True, exist_ok=True)
    # A repeated comparison of a group continues the same run.
    identity = hashlib.sha256(f"{project}/{group}/{JOB_TYPE}".encode()).hexdigest()[:16]
    values = {
        "method": comparison.method if comparison else None,
        "models": [curve.name for curve in models],
        "anchors": [curve.name for curve in anchors],
    }
    options |= {"project": project, "group": group, "job_type": JOB_TYPE, "name": f"{JOB_TYPE} {group}", "id": identity}
    try:
        quiet = wandb.Settings(quiet=True)
        with wandb.init(dir=str(folder), config=values, settings=quiet, **options) as run:
            run.log(_contents(comparison, models, anchors))
            if comparison:
                found = (*comparison.rates, *comparison.between)
                rates = ((f"{JOB_TYPE}/{rate.metric}/{rate.test} vs {rate.anchor}", rate) for rate in found)
                run.summary.update({key: rate.percent for key, rate in rates})
            return Path(run.dir).parent
    except wandb.Error as error:
        raise UserError(f"W&B: {' '.join(str(error).split())}; allowed: WANDB_MODE=offline") from error


def _contents(comparison: Comparison | None, models: Sequence[RDCurve], anchors: Sequence[RDCurve]) -> dict[str, Any]:
    # W&B looks for this module when it is given a figure, and assumes that it has been imported.
    import matplotlib.pyplot  # noqa: F401
    import wandb

    from jointiq.evaluation.plots.rd_plot import rd_figure

    contents: dict[str, Any] = {CLOSING_CHART: rd_chart([*curve_rows("model", models), *curve_rows("anchor", anchors)])}
    if comparison and (rates := [*comparison.rates, *comparison.between]):
        rows = [list(astuple(rate)) for rate in rates]
        contents[f"{JOB_TYPE}/rates"] = wandb.Table(columns=list(RATE_COLUMNS), data=rows)
    if comparison and comparison.ablations:
        rows = _ablation_rows(comparison)
        contents[f"{JOB_TYPE}/ablations"] = wandb.Table(columns=list(ABLATION_COLUMNS), data=rows)
    if comparison and comparison.left_out:
        rows = [[str(one)] for one in comparison.left_out]
        contents[f"{JOB_TYPE}/left_out"] = wandb.Table(columns=["pair and reason"], data=rows)
    for metric, key in METRICS.items():
        ours = [curve for curve in models if key in curve.results]
        if ours:
            contents[f"{JOB_TYPE}/rd_{metric}"] = wandb.Image(rd_figure(ours, anchors, metric))
    return contents


def _ablation_rows(comparison: Comparison) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for study in comparison.ablations:
        for name, (label, paper) in table_2().items():
            of_metric = study.rates.get(name, {})
            ours = [rate.percent if (rate := of_metric.get(metric)) else None for metric in METRICS]
            rows.append([str(study.folder), label, paper, *ours])
    return rows
