"""What one sees while a model trains: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from jointiq.errors import ConfigError
from jointiq.training.callbacks.pace import Pace, share_done
from jointiq.training.callbacks.stop import leaves_out_validation

STYLES = ("auto", "bar", "lines", "off")

_WATCHED = {"loss": "train/loss", "bpp": "train/bpp", "psnr": "train/psnr"}
# Reading a metric waits for the device: not at every step.
_BAR_SECONDS = 0.5


class Progress(Callback):
    """Step, loss, bpp, PSNR (of the last batch), speed and time left.

    Args:
        style: ``bar``, ``lines``, ``off``, or ``auto`` for a bar on a terminal and lines elsewhere.
        line_seconds: seconds between two lines.

    Raises:
        ConfigError: unknown style.
    """

    def __init__(self, style: str = "auto", line_seconds: float = 10.0) -> None:
        if style not in STYLES:
            raise ConfigError("callbacks.progress.style", style, STYLES)
        self.console = Console()
        self.style = ("bar" if self.console.is_terminal else "lines") if style == "auto" else style
        self.seconds = _BAR_SECONDS if self.style == "bar" else line_seconds
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._shown = 0.0
        self._pace = Pace()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the bar."""
        if not trainer.is_global_zero:
            self.style = "off"
        self._shown = time.monotonic()
        self._pace.start(trainer, pl_module)
        if self.style == "bar":
            self._bar = RichProgress(BarColumn(bar_width=10), TextColumn("{task.description}"), console=self.console)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Refresh when it is time to, and at the last step."""
        now = time.monotonic()
        if self.style != "off" and (now - self._shown >= self.seconds or trainer.global_step == trainer.max_steps):
            self._shown = now
            self._show(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One line with the validation's means."""
        if self.style == "off" or trainer.sanity_checking or leaves_out_validation(trainer):
            return
        metrics = trainer.callback_metrics
        names = ("loss", "bpp", "psnr", "ms_ssim")
        values = "  ".join(f"{name} {float(metrics[f'val/{name}']):.4f}" for name in names if f"val/{name}" in metrics)
        self.console.print(f"validation at step {trainer.global_step}: {values}", highlight=False, soft_wrap=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal in order, however the training ended."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order before the error is printed."""
        self._close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar before anything else is printed."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        left = timedelta(seconds=round(self._pace.seconds_left(trainer, pl_module)))
        speed = self._pace.steps_per_second(trainer)
        metrics = trainer.callback_metrics
        values = "  ".join(f"{name} {float(metrics[key]):.3f}" for name, key in _WATCHED.items() if key in metrics)
        text = f"{trainer.global_step}/{trainer.max_steps}  {values}  {speed:.1f}/s  {left} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=share_done(trainer, pl_module), description=text)
        else:
            finish = f"{datetime.now() + left:%Y-%m-%d %H:%M}"
            self.console.print(f"step {text}, until {finish}", highlight=False, soft_wrap=True)
