"""Log a run's rate-distortion point in W&B while it trains, so that the runs of a sweep make a curve beside anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer

from jointiq.errors import check_whole
from jointiq.runs.name import curve_name
from jointiq.tracking.logger import WandbLog
from jointiq.tracking.pictures import is_due, row
from jointiq.tracking.tables import CHART, curve_rows, rd_chart, rd_row


class RDPoints(Callback):
    """Log the newest point of this run in W&B: bpp (estimated), PSNR and MS-SSIM of the validation images.

    It is a row of a table, and a point of a chart over all runs that are shown. The points of the anchors
    (``logger.wandb.anchors``) follow in the same table.

    Args:
        curve: name of the curve that the run is a point of, such as the experiment's; see
            :func:`jointiq.runs.name.curve_name`.
        stage: name of the training's stage.
        typed: overrides of the run that make another curve.
        every: log at every ``every``-th validation from the first, and at the last of the training.

    Raises:
        ConfigError: a value that is not a whole number in its range.
    """

    def __init__(self, curve: str, stage: str = "joint", typed: Sequence[str] = (), every: int = 1) -> None:
        check_whole("callbacks.rd_points.every", every, 1)
        self.curve, self.stage, self.typed, self.every = curve, stage, typed, every

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means of the validation as a point."""
        takers = [logger for logger in trainer.loggers if isinstance(logger, WandbLog)]
        means = trainer.callback_metrics
        if not (is_due(trainer, self.every) and takers and trainer.is_global_zero and "val/bpp" in means):
            return
        criterion: Any = pl_module.criterion
        name = curve_name(self.curve, self.stage, criterion.distortion, self.typed)
        points = []
        # A model of all rates is validated at several qualities.
        for end in [key.removeprefix("val/bpp") for key in means if key.startswith("val/bpp_q")] or [""]:
            bpp, psnr, ms_ssim = (
                float(means[key]) if (key := f"val/{kind}{end}") in means else None
                for kind in ("bpp", "psnr", "ms_ssim")
            )
            label = end.removeprefix("_") or f"{criterion.lmbda:g}"
            points.append(rd_row(name, "model", label, trainer.global_step, bpp, psnr, ms_ssim))
        for logger in takers:
            chart = rd_chart([*points, *curve_rows("anchor", logger.anchors)])
            logger.log_metrics({CHART: chart}, step=row(trainer))
