"""The W&B run of a training: online or offline, its name and identity, its configuration, its end."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger

from jointiq.evaluation.rd import RDCurve
from jointiq.tracking.mode import is_offline


class WandbLog(WandbLogger):
    """Lightning's W&B logger; a run that is continued continues its W&B run.

    Args:
        project, group: where the run appears.
        save_dir: the run's folder, which W&B's own files go into.
        results: folder of all results; the run is named by its path in ``results/runs``.
        offline: True, False, or None: offline unless the user is logged in; WANDB_MODE wins over None.
        anchors: an RD file, or a folder that holds some, whose curves stand behind the run's own point; None: none.
        closing: of the config, for :mod:`jointiq.sweeps`: what records the end of a sweep.
        tags, entity, job_type, notes, log_model: as in ``wandb.init`` and in Lightning's logger.

    Raises:
        ConfigError: a mode or project that W&B does not know.
        DataError: ``anchors`` does not exist, or holds a file that cannot be a curve.
    """

    def __init__(
        self,
        project: str,
        group: str,
        save_dir: str,
        results: str,
        offline: bool | None = None,
        anchors: str | None = None,
        closing: Any = None,
        tags: Sequence[str] = (),
        entity: str | None = None,
        job_type: str | None = None,
        notes: str | None = None,
        log_model: bool | Literal["all"] = False,
    ) -> None:
        offline = is_offline(project, offline)
        self.anchors = read_anchors(anchors)
        # Lightning sets WANDB_MODE, which wandb reads but once a process: a second run in it has to be told.
        mode = {"mode": "offline"} if offline else {}
        options: dict[str, Any] = {"tags": list(tags), "entity": entity, "job_type": job_type, "notes": notes, **mode}
        identity = wandb_identity(Path(save_dir), Path(results))
        super().__init__(
            project=project, group=group, save_dir=save_dir, offline=offline, log_model=log_model, **identity, **options
        )

    def finalize(self, status: str) -> None:
        """Close the run of a training that failed; another one stays open for its validation and RD point."""
        super().finalize(status)
        if status != "success":
            self.close(failed=True)

    def close(self, failed: bool = False) -> None:
        """Close the run."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(failed))
            self._experiment = None


def read_anchors(place: str | Path | None) -> list[RDCurve]:
    """Return the curves of an RD file or of a folder of them; none without a place.

    Raises:
        DataError: no such place, or a file that cannot be a curve.
    """
    if place is None:
        return []
    from jointiq.evaluation.comparison import find_curves  # late: it brings SciPy

    return [file.curve for file in find_curves([Path(place)])]


def wandb_identity(folder: Path, results: Path) -> dict[str, Any]:
    """``id`` and ``name`` of the W&B run that belongs to a run's ``folder``.

    The id is the same whenever the run is continued, and another one where an earlier run of this configuration has
    been moved aside. The name is the folder's, with its experiment's and stage's where it lies in ``results/runs``.
    """
    folder, runs = folder.resolve(), (results / "runs").resolve()
    moved = sum(1 for _ in folder.parent.glob(f"{glob.escape(folder.name)}.old*"))
    identity = hashlib.sha256(f"{folder}#{moved}".encode()).hexdigest()[:16]
    inside = folder.relative_to(runs).as_posix() if folder.is_relative_to(runs) else folder.name
    return {"id": identity, "name": inside}
