"""W&B logger of a training; a continued run continues its W&B run."""

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
    """Lightning's W&B logger, with the id of the W&B run made from the run's folder.

    Args:
        project, group: project and group of the W&B run.
        save_dir: the run's folder, which holds W&B's own files.
        results: folder of all results; the run is named by its path in ``results/runs``.
        offline: True, False, or None: offline unless the user is logged in; WANDB_MODE takes precedence over None.
        anchors: an RD file, or a folder of them, whose curves are shown beside the run's own point; None: none.
        closing: not used here; :mod:`jointiq.sweeps` reads from the config what logs the end of a sweep.
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
        # Lightning sets WANDB_MODE, which wandb reads only once in a process; a second run needs it as an argument.
        mode = {"mode": "offline"} if offline else {}
        options: dict[str, Any] = {"tags": list(tags), "entity": entity, "job_type": job_type, "notes": notes, **mode}
        identity = wandb_identity(Path(save_dir), Path(results))
        super().__init__(
            project=project, group=group, save_dir=save_dir, offline=offline, log_model=log_model, **identity, **options
        )

    def finalize(self, status: str) -> None:
        """Close the run if the training failed; otherwise it stays open for the validation and the RD point."""
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
    from jointiq.evaluation.comparison import find_curves  # late: it imports SciPy

    return [file.curve for file in find_curves([Path(place)])]


def wandb_identity(folder: Path, results: Path) -> dict[str, Any]:
    """Return ``id`` and ``name`` of the W&B run for a run's ``folder``.

    The id stays the same when the run is continued, and changes when an earlier run of this config was moved aside. The
    name is the path of the folder in ``results/runs``, or the folder's name if it is elsewhere.
    """
    folder, runs = folder.resolve(), (results / "runs").resolve()
    moved = sum(1 for _ in folder.parent.glob(f"{glob.escape(folder.name)}.old*"))
    identity = hashlib.sha256(f"{folder}#{moved}".encode()).hexdigest()[:16]
    inside = folder.relative_to(runs).as_posix() if folder.is_relative_to(runs) else folder.name
    return {"id": identity, "name": inside}
