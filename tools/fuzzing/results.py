"""Damaged result files and run folders: commands that read them must end in an error of one line, or in full output."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

from jointiq.commands import bdrate, evaluate, report, status
from jointiq.configs import compose
from jointiq.errors import UserError, run_cli
from jointiq.evaluation.rd import RDCurve, write_rd
from jointiq.files import write_text
from jointiq.runs import folder as run_folder
from jointiq.runs.rd_point import key_of_curve
from jointiq.runs.resume import find_start
from jointiq.runs.status import write_status
from jointiq.training.csv_log import CsvLog
from tools.fuzzing.damage import damage_bytes, damage_values, wrong
from tools.fuzzing.worker import Case

_LMBDAS = (0.5, 0.23, 0.12, 0.06)
_IMAGES = (("a.png", 60, 40), ("b.png", 50, 30))


class Results:
    """A folder with runs, a sweep, anchors and a published curve, one file of which is damaged."""

    def __init__(self, folder: Path) -> None:
        self.root, self.output = folder / "results", folder / "output"
        for experiment, bpp in (("jointiq", 1.0), ("ablation_no_gc", 1.1)):
            for lmbda in _LMBDAS:
                self._write_run(self.root / "runs" / experiment / f"lmbda{lmbda}", experiment, lmbda, bpp)
        self.runs = sorted((self.root / "runs" / "jointiq").iterdir())
        for number, run in enumerate(self.runs):
            values = {"overrides": [f"lmbda={_LMBDAS[number]}"], "folder": str(run), "code": (0, 1, None, 143)[number]}
            write_text(self.root / "sweeps" / "s" / "jobs" / f"{number}.json", json.dumps(values))
        rows = [_rows(number, 1.5, codec="jpeg", setting=number) for number in range(len(_LMBDAS))]
        write_rd(self.root / "anchors" / "jpeg.json", _curve("jpeg", 1.5, rows))
        write_rd(self.root / "published.json", _curve("published", 1.2, []))
        self.files = sorted(path for kind in ("*.json", "*.yaml", "metrics.csv") for path in self.root.rglob(kind))

    def case(self, rng: np.random.Generator) -> Case:
        """Return a damaged file; ``aim`` is the name of the method for the command that reads it."""
        path = self.files[int(rng.integers(len(self.files)))]
        is_rd = path.suffix == ".json" and '"results"' in path.read_text()
        # A report takes longer than all others together.
        readers = (
            [self._status, *8 * [self._bdrate, self._pair], self._report] if is_rd
            else [self._status, self._resume, self._checkpoints]
        )  # fmt: skip
        data = path.read_bytes()
        data = _other_values(rng, path, data) if rng.integers(3) else damage_bytes(rng, [data])
        return Case(str(path.relative_to(self.root)), data, readers[int(rng.integers(len(readers)))].__name__)

    def check(self, case: Case) -> None:
        path = self.root / case.name
        whole = path.read_bytes()
        path.write_bytes(case.data)
        try:
            _run(getattr(self, case.aim)(path), self.output)
            assert not list(self.root.rglob(".unfinished*")), "something unfinished is left"
        finally:
            path.write_bytes(whole)
            shutil.rmtree(self.output, ignore_errors=True)

    def _write_run(self, folder: Path, experiment: str, lmbda: float, bpp: float) -> None:
        cfg = compose("train", [f"+experiment={experiment}", "scale=demo", f"lmbda={lmbda}"])
        cfg.paths.run_dir = str(folder)
        run_folder.describe(folder, cfg)
        (folder / run_folder.CHECKPOINT).parent.mkdir()
        (folder / run_folder.CHECKPOINT).touch()
        write_status(folder, {"step": 5, "steps": 9, "bpp": 0.5, "psnr": 30.0, "seconds_left": 60.0, "failure": None})
        run_folder.mark_done(folder, 9)
        write_text(folder / "metrics.csv", "step,train/loss,val/loss,val/bpp\n0,1.5,,\n1,1.4,1.3,0.5\n")
        point = _curve(experiment, bpp, [_rows(_LMBDAS.index(lmbda), bpp, lmbda=lmbda, seed=0)])
        results = {key: (values[_LMBDAS.index(lmbda)],) for key, values in point.results.items()}
        about = {"curve": key_of_curve(cfg), "experiment": experiment, "typed": [], "test_images": "x"}
        write_rd(folder / run_folder.RD_FILE, RDCurve(experiment, results, images=point.images, about=about))

    def _status(self, path: Path) -> Callable[[], int | None]:
        arguments = ["status", str(self.root / "runs"), str(self.root / "sweeps" / "s")]

        def main() -> int:
            with patch.object(sys, "argv", arguments):
                return status.main()

        return main

    def _bdrate(self, path: Path) -> Callable[[], int | None]:
        return lambda: bdrate.main(["--results", str(self.root), "--output", str(self.output)])

    def _pair(self, path: Path) -> Callable[[], int | None]:
        return lambda: bdrate.main([str(self.root / "anchors" / "jpeg.json"), str(path)])

    def _report(self, path: Path) -> Callable[[], int | None]:
        return lambda: report.main([str(self.root), "--output", str(self.output / "report.html")])

    def _resume(self, path: Path) -> Callable[[], int | None]:
        """Look for the start of a run in its folder, as a training does."""

        def main() -> int:
            folder = next((run for run in self.runs if run in path.parents), self.runs[0])
            cfg = compose("train", ["+experiment=jointiq", "scale=demo", f"lmbda={_LMBDAS[self.runs.index(folder)]}"])
            find_start(folder, cfg)
            run_folder.last_validation(folder)
            CsvLog(str(folder)).keep_until(2)
            run_folder.done_step(folder)
            return 0

        return main

    def _checkpoints(self, path: Path) -> Callable[[], int | None]:
        """Look for checkpoints and the names of their curves, as an evaluation does."""
        return lambda: len(evaluate._checkpoints([str(self.root / "runs"), str(self.root / "sweeps" / "s")])) * 0


def target(folder: Path) -> Results:
    """Return the target of ``WHAT=results``."""
    return Results(folder)


def _run(main: Callable[[], int | None], output: Path) -> None:
    """Run a command as it is typed.

    Raises:
        UserError: it has ended with code 2 and one line.
        AssertionError: it has ended in another way, or has written something all the same.
    """
    said, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code: Any = None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        try:
            run_cli(main)
        except SystemExit as end:
            code = end.code
    if not code:
        return
    errors.seek(0)
    lines = errors.read().splitlines()
    lines = [line for line in lines if not line.startswith(("skipped: ", "left out: "))]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: "), f"exit code {code}: {lines}"
    assert not output.exists(), f"half written: {sorted(output.rglob('*'))}"
    raise UserError(lines[0])


def _curve(name: str, factor: float, rows: list[list[dict[str, Any]]]) -> RDCurve:
    results = {"bpp": tuple(factor * bpp for bpp in (0.1, 0.2, 0.4, 0.8)), "psnr-rgb": (28.0, 31.0, 34.0, 37.0),
               "ms-ssim-rgb": (0.9, 0.95, 0.98, 0.99), "encoding_time": (1.0, 1.0, 1.0, 1.0)}  # fmt: skip
    return RDCurve(name, results, images=tuple(row for of_point in rows for row in of_point))


def _rows(number: int, factor: float, **labels: Any) -> list[dict[str, Any]]:
    """Return a row for each image of point ``number``."""
    values = {"bpp": factor * 0.1 * 2**number, "psnr": 28.0 + 3 * number, "ms_ssim": 0.9 + 0.03 * number}
    return [
        {**labels, "image": name, "width": width, "height": height, "bytes": 300, **values, "encoding_time": 1.0}
        for name, width, height in _IMAGES
    ]


def _other_values(rng: np.random.Generator, path: Path, data: bytes) -> bytes:
    """Return a file of the same form with other values in it."""
    if path.suffix == ".yaml":
        return yaml.safe_dump(damage_values(rng, yaml.safe_load(data))).encode(errors="surrogatepass")
    if path.suffix == ".json":
        return json.dumps(damage_values(rng, json.loads(data))).encode()
    table = list(csv.reader(data.decode().splitlines()))
    for _ in range(int(rng.integers(1, 4))):
        row = table[int(rng.integers(len(table)))]
        if row:
            row[int(rng.integers(len(row)))] = str(wrong(rng))
    if not rng.integers(3):
        table[int(rng.integers(len(table)))].append("more")
    written = io.StringIO()
    csv.writer(written).writerows(table)
    return written.getvalue().encode(errors="surrogatepass")
