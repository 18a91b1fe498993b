"""How fast a training goes and when it will end."""

from __future__ import annotations

import time

from lightning import LightningModule, Trainer


class Pace:
    """Speed and time left of a training, from its own start (of this process, where a run is continued)."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first_step = 0
        self._first_share = 0.0

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()
        self._first_step = trainer.global_step
        self._first_share = share_done(trainer, module)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def steps_per_second(self, trainer: Trainer) -> float:
        """Optimizer steps a second since the start, validation counted in."""
        return (trainer.global_step - self._first_step) / max(self.seconds, 1e-9)

    def seconds_left(self, trainer: Trainer, module: LightningModule) -> float:
        """Seconds to the end, if it goes on as it went since the start."""
        share = share_done(trainer, module)
        return self.seconds * (1 - share) / max(share - self._first_share, 1e-9)


def share_done(trainer: Trainer, module: LightningModule) -> float:
    """Share of the training that is done, 0 to 1: by steps, or by the time cap where the module says so."""
    progress = getattr(module, "progress", None)
    return float(progress(trainer.global_step)) if callable(progress) else trainer.global_step / trainer.max_steps
