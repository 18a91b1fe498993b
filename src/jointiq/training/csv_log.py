"""Logger that writes ``metrics.csv``, with one row for each logged step and each validation."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from jointiq.files import atomic_path


class CsvLog(CSVLogger):
    """``metrics.csv`` in ``folder``. A continued run keeps the rows of the steps before it."""

    def __init__(self, folder: str) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._file = Path(folder) / "metrics.csv"
        self._experiment = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, which collects rows."""
        if self._experiment is None:
            self._experiment = _Writer(self._file)
        return self._experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """Write nothing: the run's ``config.yaml`` holds the configuration."""

    @rank_zero_only
    def keep_until(self, step: int) -> None:
        """Keep the rows of the first ``step`` optimizer steps of this run; later steps are trained again.

        Call it before the first metric is logged.
        """
        self.experiment.keep_until(step)


class _Writer(ExperimentWriter):
    """Lightning's writer; whenever the process is killed, the rows written before stay in the file."""

    def __init__(self, file: Path) -> None:
        super().__init__(log_dir=str(file.parent))
        self.file = file

    def keep_until(self, step: int) -> None:
        """Keep the rows of the first ``step`` steps; drop an incomplete last line."""
        text = self.file.read_text(errors="replace") if self.file.is_file() else ""
        reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
        # Lightning numbers rows from 0: row `step` belongs to the step after `step` finished ones.
        rows = [row for row in reader if (at := row.get("step") or "").isdigit() and int(at) < step]
        if rows:
            self.metrics_keys = list(reader.fieldnames or ())
            self._write(rows)
        else:
            self.file.unlink(missing_ok=True)

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        with atomic_path(self.file) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=self.metrics_keys, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with self.file.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        self._write(rows)

    def _check_log_dir_exists(self) -> None:
        """Keep an earlier file, which Lightning would remove here; :meth:`keep_until` cuts it."""
