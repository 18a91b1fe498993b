"""Build the W&B workspace of a project: its sections and panels. Only :func:`save` uses the network.

The panels show the keys that a training and its callbacks log (:mod:`jointiq.training`), and those of the last run of a
sweep (:mod:`jointiq.tracking.bdrate`).
"""

from __future__ import annotations

import sys
from typing import Any

from jointiq.errors import UserError
from jointiq.evaluation.plots.rd_plot import ANCHOR_GREYS, OUR_COLOURS
from jointiq.tracking.bdrate import CLOSING_CHART, JOB_TYPE
from jointiq.tracking.tables import CHART, table_of

#: Name of the custom chart for RD curves, which W&B stores for an entity.
CHART_NAME = "jointiq-rd-curve"
CHART_TITLE = "Rate-distortion curves with anchors"
STEP = "trainer/global_step"
#: Validation images whose pictures are shown (``callbacks.panels.images``).
IMAGES = 4
#: Section -> title of a line plot over the steps -> its keys.
LINES: dict[str, dict[str, tuple[str, ...]]] = {
    "Training": {
        "Loss": ("train/loss", "val/loss"),
        "PSNR (dB)": ("train/psnr", "val/psnr"),
        "MS-SSIM": ("val/ms_ssim",),
        "Learning rate": ("lr",),
    },
    "Rate": {
        "Bits per pixel": ("train/bpp", "val/bpp"),
        "Bits per pixel of y": ("train/bpp_y", "val/bpp_y"),
        "Bits per pixel of the side information": ("train/bpp_z", "val/bpp_z"),
    },
    "Health": {
        "Norm of the gradient": ("train/grad_norm",),
        "Share of sigmas at their bound": ("train/sigma_floor",),
        "Steps per second": ("steps_per_second",),
        "Hours left": ("hours_left",),
    },
}
COLUMNS = ("run:group", "run:jobType", "config:lmbda", "summary:val/bpp", "summary:val/psnr", "summary:val/ms_ssim")


def build_workspace(entity: str, project: str, group: str | None = None) -> Any:
    """Return the workspace, a ``wandb_workspaces.workspaces.Workspace``, without saving it.

    Args:
        entity, project: the owner and the project of the workspace.
        group: the sweep whose runs are shown; None: all runs of the project.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    workspaces, reports, expressions = _library()
    sections = [("Rate-distortion", _rd_panels(reports, entity))]
    sections += [(name, _lines(reports, plots)) for name, plots in LINES.items()]
    sections.insert(2, ("Pictures", _pictures(reports)))
    sections.append(("BD-rate", _bd_rates(reports, entity)))
    runs = workspaces.RunsetSettings(
        filters=expressions.And(expressions.Metric("Group") == group) if group else "",
        pinned_columns=list(COLUMNS),
    )
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{project}: {group}" if group else f"{project}: rate-distortion",
        sections=[workspaces.Section(name=name, panels=panels, is_open=True) for name, panels in sections],
        settings=workspaces.WorkspaceSettings(x_axis=STEP, max_runs=50),
        runset_settings=runs,
    )


def save(workspace: Any) -> str:
    """Save a workspace and its custom chart for the user who is logged in; return the address.

    If W&B refuses the chart, because it has that of an earlier call, this is printed to stderr.

    Raises:
        UserError: W&B refuses; the message is its own.
    """
    import wandb

    try:
        api = wandb.Api()
        try:
            names = {"entity": workspace.entity, "name": CHART_NAME, "display_name": CHART_TITLE}
            api.create_custom_chart(**names, spec_type="vega2", access="private", spec=rd_chart_spec())
        except Exception as error:
            print(
                f"the chart {workspace.entity}/{CHART_NAME} stays as it is: {' '.join(str(error).split())}",
                file=sys.stderr,
            )
        workspace.save()
    # Both libraries raise errors of many kinds, private ones among them.
    except Exception as error:
        raise UserError(f"W&B refused the dashboard: {' '.join(str(error).split())}") from error
    return str(workspace.url)


def rd_chart_spec() -> dict[str, Any]:
    """Return a Vega-Lite chart of the tables of :mod:`jointiq.tracking.tables`: models in colour, anchors grey.

    W&B fills in the rows of all runs that are shown (``data.name``), and the columns and texts that a panel sets for
    ``${field:...}`` and ``${string:...}``. The points of an anchor, which every run of a sweep has, are drawn once.
    """
    curve, kind, point, x, y = (f"${{field:{name}}}" for name in ("curve", "kind", "point", "x", "y"))
    axes = {
        "x": {"field": x, "type": "quantitative", "title": "rate (bits per pixel)", "scale": {"zero": False}},
        "y": {"field": y, "type": "quantitative", "title": "${string:quality}", "scale": {"zero": False}},
    }
    tooltip = [{"field": field, "type": "nominal"} for field in (curve, point)]
    tooltip += [{"field": field, "type": "quantitative", "format": ".4f"} for field in (x, y)]
    colour = {"field": curve, "type": "nominal", "scale": {"range": list(OUR_COLOURS)}, "title": "models"}
    dash = {"field": curve, "type": "nominal", "title": "anchors"}

    def layer(of: str, mark: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
        return {
            "transform": [{"filter": f"datum['{kind}'] === '{of}'"}],
            "mark": mark,
            "encoding": {**axes, **encoding, "tooltip": tooltip, "detail": {"field": curve, "type": "nominal"}},
        }

    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"name": "wandb"},
        "title": "${string:title}",
        "transform": [
            {"filter": f"isValid(datum['{x}']) && isValid(datum['{y}'])"},
            {"aggregate": [{"op": "count", "as": "rows"}], "groupby": [curve, kind, point, x, y]},
        ],
        "layer": [
            layer("anchor", {"type": "line", "strokeWidth": 1, "color": ANCHOR_GREYS[0]}, {"strokeDash": dash}),
            layer("model", {"type": "line", "strokeWidth": 2, "point": {"size": 50}}, {"color": colour}),
        ],
    }


def _library() -> tuple[Any, Any, Any]:
    try:
        import wandb_workspaces.expr as expressions
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError as error:
        raise UserError(
            "src.dashboard needs the package wandb-workspaces; allowed: pip install wandb-workspaces"
        ) from error
    return workspaces, reports, expressions


def _chart(reports: Any, entity: str, table: str, key: str, quality: str) -> Any:
    """Return a panel with curves of the column ``key`` over rate, from the table ``table`` of all runs shown."""
    return reports.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=f"{entity}/{CHART_NAME}",
        chart_fields={"curve": "curve", "kind": "kind", "point": "point", "x": "bpp", "y": key},
        chart_strings={"title": f"{quality} over rate", "quality": quality},
    )


def _rd_panels(reports: Any, entity: str) -> list[Any]:
    """Return panels with the RD curves of all runs shown, and with their last points."""

    def scatter(key: str, quality: str) -> Any:
        return reports.ScatterPlot(
            title=f"{quality} over rate, each run's last validation",
            x=reports.SummaryMetric("val/bpp"),
            y=reports.SummaryMetric(f"val/{key}"),
        )

    return [
        _chart(reports, entity, table_of(CHART), "psnr", "PSNR (dB)"),
        _chart(reports, entity, table_of(CHART), "ms_ssim_db", "MS-SSIM (dB)"),
        scatter("psnr", "PSNR (dB)"),
        scatter("ms_ssim", "MS-SSIM"),
        reports.WeavePanelSummaryTable(table_name=table_of(CHART)),
    ]


def _lines(reports: Any, plots: dict[str, tuple[str, ...]]) -> list[Any]:
    return [reports.LinePlot(title=title, x=STEP, y=list(keys)) for title, keys in plots.items()]


def _pictures(reports: Any) -> list[Any]:
    images = [f"val/image_{index}" for index in range(IMAGES)]
    return [
        reports.MediaBrowser(title="Original, I, Q, error, bits of each latent", media_keys=images, num_columns=6),
        reports.MediaBrowser(title="Weights psi of the global context", media_keys=["psi"], num_columns=8),
    ]


def _bd_rates(reports: Any, entity: str) -> list[Any]:
    plots = [f"{JOB_TYPE}/rd_psnr", f"{JOB_TYPE}/rd_ms-ssim"]
    tables = [reports.WeavePanelSummaryTable(table_name=f"{JOB_TYPE}/{name}") for name in ("rates", "ablations")]
    return [
        _chart(reports, entity, table_of(CLOSING_CHART), "psnr", "PSNR (dB)"),
        *tables,
        reports.MediaBrowser(title="Rate-distortion plots", media_keys=plots, num_columns=2),
    ]
