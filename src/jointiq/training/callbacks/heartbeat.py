"""Report the progress of a training: a bar or lines on the console, ``status.json``, speed and time left in the log."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from jointiq.errors import ConfigError
from jointiq.runs.status import read_status, write_status

STYLES = ("auto", "bar", "lines", "off")

_SHOWN = {"loss": "train/loss", "bpp": "train/bpp", "psnr": "train/psnr"}
_MEANS = ("loss", "bpp", "psnr", "ms_ssim")
# Means of the last validation that `python -m src.status` shows.
_IN_STATUS = ("bpp", "psnr")

# Reading a metric waits for the device: not at every step.
_BAR_SECONDS = 0.5
_STATUS_SECONDS = 5.0
# The bar and its words stay on one line of 80 columns.
_BAR_WIDTH = 6


class Heartbeat(Callback):
    """Report step, speed and time left of a training on the console, in ``status.json`` and in the log.

    The console shows step, loss, bpp and PSNR of the last batch, speed and time left, and a line for each validation.
    ``status.json`` is what ``python -m src.status`` reads. The log has ``steps_per_second`` (since its last row,
    without validation) and ``hours_left``. Times left are estimated from the steps that this process has trained.

    Args:
        folder: the run's folder.
        style: on the console: ``bar``, ``lines``, ``off``, or ``auto`` for a bar on a terminal and lines elsewhere.
        line_seconds: seconds between two lines.

    Raises:
        ConfigError: unknown style.
    """

    def __init__(self, folder: str, style: str = "auto", line_seconds: float = 10.0) -> None:
        if style not in STYLES:
            raise ConfigError("callbacks.progress.style", style, STYLES)
        self.folder = Path(folder)
        self.console = Console()
        self.style = ("bar" if self.console.is_terminal else "lines") if style == "auto" else style
        self.seconds = _BAR_SECONDS if self.style == "bar" else line_seconds
        self._bar: Progress | None = None
        self._task: Any = None
        #: Monotonic times in seconds: start, and last console output, status file, logged row and validation start.
        self._began = self._shown = self._written = self._logged = self._paused = time.monotonic()
        self._first_step = self._logged_step = 0
        self._first_share = 0.0
        self._means: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the bar, and write the first ``status.json``."""
        self._began = self._shown = self._logged = time.monotonic()
        self._first_step = self._logged_step = trainer.global_step
        self._first_share = _share_done(trainer, pl_module)
        # A continued run shows the last validation of its earlier part until its own first one.
        earlier = read_status(self.folder)
        self._means = {key: earlier.get(key) for key in _IN_STATUS}
        self._write_status(trainer, None)
        if not trainer.is_global_zero:
            self.style = "off"
        if self.style == "bar":
            words = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
            self._bar = Progress(BarColumn(bar_width=_BAR_WIDTH), words, console=self.console)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log where Lightning logs; update the console and ``status.json`` when they are due."""
        now, step = time.monotonic(), trainer.global_step
        left = self._seconds_left(trainer, pl_module)
        if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log("steps_per_second", (step - self._logged_step) / max(now - self._logged, 1e-9))
            pl_module.log("hours_left", left / 3600)
            self._logged, self._logged_step = now, step
        if self.style != "off" and (now - self._shown >= self.seconds or step == trainer.max_steps):
            self._shown = now
            self._show(trainer, pl_module, left)
        if now - self._written >= _STATUS_SECONDS:
            self._write_status(trainer, left)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause the clock of the speed."""
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resume the clock; show the means of the validation and write them to ``status.json``."""
        self._logged += time.monotonic() - self._paused
        if trainer.interrupted:  # there are no means
            return
        metrics = trainer.callback_metrics
        means = {name: float(metrics[f"val/{name}"]) for name in _MEANS if f"val/{name}" in metrics}
        self._means |= {key: means[key] for key in _IN_STATUS if key in means}
        self._write_status(trainer, self._seconds_left(trainer, pl_module))
        if self.style != "off" and trainer.is_global_zero:
            values = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            self.console.print(f"validation at step {trainer.global_step}: {values}", highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar before anything else is printed, and write the last step to ``status.json``."""
        self._close_bar()
        self._write_status(trainer, None)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal in order, however the training ended."""
        self._close_bar()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order before the error is printed."""
        self._close_bar()

    def _seconds_left(self, trainer: Trainer, module: LightningModule) -> float:
        """Return the seconds to the end at the average pace since the start, validation included."""
        share = _share_done(trainer, module)
        return (time.monotonic() - self._began) * (1 - share) / max(share - self._first_share, 1e-9)

    def _show(self, trainer: Trainer, module: LightningModule, seconds_left: float) -> None:
        left = timedelta(seconds=round(seconds_left))
        speed = (trainer.global_step - self._first_step) / max(time.monotonic() - self._began, 1e-9)
        metrics = trainer.callback_metrics
        values = [f"{name} {float(metrics[key]):.3f}" for name, key in _SHOWN.items() if key in metrics]
        parts = [f"{trainer.global_step}/{trainer.max_steps}", *values, f"{speed:.1f}/s", f"{left} left"]
        text = "  ".join(parts)
        if self._bar is not None:
            if self.console.width < _BAR_WIDTH + 1 + len(text):
                text = " ".join(parts).replace(" days,", "d").replace(" day,", "d")
            self._bar.update(self._task, completed=_share_done(trainer, module), description=text)
        else:
            finish = f"{datetime.now() + left:%Y-%m-%d %H:%M}"
            self.console.print(f"step {text}, until {finish}", highlight=False, soft_wrap=True)

    def _write_status(self, trainer: Trainer, seconds_left: float | None) -> None:
        if trainer.is_global_zero:
            self._written = time.monotonic()
            steps = {"step": trainer.global_step, "steps": trainer.max_steps}
            write_status(self.folder, {**steps, **self._means, "seconds_left": seconds_left})

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _share_done(trainer: Trainer, module: LightningModule) -> float:
    """Return the share of the training that is done, 0 to 1: by steps, or by the time cap where the module says so."""
    progress = getattr(module, "progress", None)
    return float(progress(trainer.global_step)) if callable(progress) else trainer.global_step / trainer.max_steps
