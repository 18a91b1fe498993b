"""The W&B run that closes a sweep: BD-rate tables, RD points and plots, as ``job_type=bdrate`` of the sweep's group."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from jointiq.errors import UserError
from jointiq.evaluation.bd_rate import METRICS, BDRate
from jointiq.evaluation.comparison import Comparison, table_2
from jointiq.evaluation.rd import RDCurve
from jointiq.tracking.mode import is_offline
from jointiq.tracking.tables import curve_rows, rd_chart

JOB_TYPE = "bdrate"
#: Chart of the curves that were compared; apart from that of the runs in training.
CLOSING_CHART = f"{JOB_TYPE}/curve"
PROJECT = "jointiq"
#: Columns of the table of BD-rates: percent, dB, dB, share, counts.
RATE_COLUMNS = tuple(field.name for field in fields(BDRate))
#: Columns of the table laid out as the paper's Table 2: percent, by PSNR where no other metric is named.
ABLATION_COLUMNS = ("study", "model", "paper", "ours", "ours_ms_ssim")


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
    """Record a finished run with everything that a sweep comes down to.

    Args:
        group: the sweep's group in W&B.
        folder: where W&B's own files go.
        comparison: the BD-rates; None where there are none to be had.
        models, anchors: the curves.
        project: where the run appears.
        offline: True or False; None: offline unless the user is logged in or has set WANDB_MODE.
        options: further arguments of ``wandb.init``.

    Returns:
        The folder of the run's files.

    Raises:
        UserError: wandb is not installed, or does not start.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError("recording in W&B needs the package wandb; allowed: pip install wandb") from error

    if is_offline() if offline is None else offline:
        options["mode"] = "offline"
    else:
        options["resume"] = "allow"
    folder.mkdir(parents=True, exist_ok=True)
    # The same group closes in the same run, however often the comparison is made.
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
                rates = ((f"{JOB_TYPE}/{rate.metric}/{rate.test} vs {rate.anchor}", rate) for rate in comparison.rates)
                run.summary.update({key: rate.percent for key, rate in rates})
            return Path(run.dir).parent
    except wandb.Error as error:
        raise UserError(f"W&B: {' '.join(str(error).split())}; allowed: WANDB_MODE=offline") from error


def _contents(comparison: Comparison | None, models: Sequence[RDCurve], anchors: Sequence[RDCurve]) -> dict[str, Any]:
    # W&B compares a figure with this module, and takes for granted that it has been imported.
    import matplotlib.pyplot  # noqa: F401
    import wandb

    from jointiq.evaluation.plots.rd_plot import rd_figure

    contents: dict[str, Any] = {CLOSING_CHART: rd_chart([*curve_rows("model", models), *curve_rows("anchor", anchors)])}
    if comparison and comparison.rates:
        rows = [list(astuple(rate)) for rate in comparison.rates]
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
