"""Where metrics go: always a CSV file, on request Weights & Biases."""

from __future__ import annotations

import csv
import glob
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from jointiq.errors import UserError
from jointiq.evaluation.rd import RDCurve
from jointiq.files import atomic_path
from jointiq.tracking.mode import is_offline


class CsvLog(CSVLogger):
    """``metrics.csv`` in ``folder``. A continued run keeps the rows of the steps before it."""

    def __init__(self, folder: str) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._file = Path(folder) / "metrics.csv"
        self._experiment = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What collects rows and writes them."""
        if self._experiment is None:
            self._experiment = _Writer(self._file)
        return self._experiment

    @rank_zero_only
    def keep_until(self, step: int) -> None:
        """Keep the rows of an earlier part of this run up to ``step`` optimizer steps; later ones are trained again.

        To be called before the first metric is logged.
        """
        # Lightning numbers rows from 0: row `step` belongs to the step after `step` finished ones.
        self.experiment.keep(lambda row: row["step"].isdigit() and int(row["step"]) < step)

    @rank_zero_only
    def drop_validation(self, step: int) -> None:
        """Drop the row of a validation after ``step`` optimizer steps, if there is one: it will be run again.

        To be called before the first metric is logged.
        """
        self.experiment.keep(lambda row: int(row["step"]) != step - 1 or not row.get("val/loss"))


class _Writer(ExperimentWriter):
    """Lightning's, but its file never loses what was in it, whenever the process is killed."""

    def __init__(self, file: Path) -> None:
        super().__init__(log_dir=str(file.parent))
        self.file = file

    def keep(self, is_kept: Callable[[dict[str, str]], bool]) -> None:
        """Keep the rows that ``is_kept`` says; a last line that was cut short is none."""
        text = self.file.read_text() if self.file.is_file() else ""
        reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
        rows = [row for row in reader if row.get("step") and is_kept(row)]
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
        """Lightning removes an earlier file here; :meth:`keep` does what is to be done."""


class WandbLog(WandbLogger):
    """Lightning's, with the curves that stand behind the run's own rate-distortion point."""

    def __init__(self, anchors: Sequence[RDCurve] = (), **options: Any) -> None:
        super().__init__(**options)
        self.anchors = tuple(anchors)


def wandb_logger(
    project: str,
    group: str,
    save_dir: str,
    offline: bool | None = None,
    anchors: str | None = None,
    values: Any = None,
    **options: Any,
) -> Logger:
    """A W&B logger; ``offline=None`` records offline unless the user is logged in or has set WANDB_MODE.

    Args:
        project, group: where the run appears.
        save_dir: folder of W&B's own files.
        anchors: an RD file, or a folder that holds some; None: no anchors.
        values: the resolved configuration, which the run shows.
        options: further arguments of ``wandb.init``, such as ``entity`` or ``tags``.

    Raises:
        UserError: wandb is not installed.
        DataError: ``anchors`` does not exist, or holds a file that cannot be a curve.
    """
    offline = is_offline() if offline is None else offline
    if offline:
        options["mode"] = "offline"
    if values is not None:
        options["config"] = OmegaConf.to_container(values, resolve=True)
    curves = read_anchors(anchors)
    try:
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        return WandbLog(curves, project=project, group=group, save_dir=save_dir, offline=offline, **options)
    except ModuleNotFoundError as error:
        raise UserError("logger=wandb needs the package wandb; allowed: pip install wandb, or logger=csv") from error


def read_anchors(place: str | Path | None) -> list[RDCurve]:
    """The curves of an RD file or of a folder of them; none without a place.

    Raises:
        DataError: no such place, or a file that cannot be a curve.
    """
    if place is None:
        return []
    from jointiq.evaluation.comparison import find_curves

    return [file.curve for file in find_curves([Path(place)])]


def wandb_identity(folder: Path, results: Path) -> dict[str, str]:
    """``id`` and ``name`` of the W&B run that belongs to a run's ``folder``.

    The id is the same whenever the run is continued, and another one where an earlier run of this configuration has
    been moved aside. The name is the folder's, with its experiment's and stage's where it lies in ``results/runs``.
    """
    folder, runs = folder.resolve(), (results / "runs").resolve()
    moved = sum(1 for _ in folder.parent.glob(f"{glob.escape(folder.name)}.old*"))
    identity = hashlib.sha256(f"{folder}#{moved}".encode()).hexdigest()[:16]
    inside = folder.relative_to(runs).as_posix() if folder.is_relative_to(runs) else folder.name
    return {"id": identity, "name": inside}


def finish_wandb() -> None:
    """Close the W&B run of this process, if there is one."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
