"""What an analysis is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jointiq.console import Table
from jointiq.data.image_sets import ImageSet
from jointiq.errors import DataError
from jointiq.evaluation.rd import RDCurve, Row, curve_from_rows
from jointiq.studies.plan import Scale, Study
from jointiq.studies.training import Training

#: What was measured of each training, by its folder, the quality of a model of all rates, and the hash of the pixels.
MeasuredRows = Mapping[Path, Mapping[float | None, Mapping[str, Row]]]


@dataclass(frozen=True)
class Ours:
    """Our number beside a value of the paper.

    Attributes:
        value: name of the paper's value.
        text: the number as a table shows it.
        numbers: the same for ``results.json``.
        measured_on: the images, as text.
        steps: of the training, as text.
        verdict: how it compares with the paper.
    """

    value: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    measured_on: str = "no images"
    steps: str = "none"
    verdict: str = ""


@dataclass
class Findings:
    """What analyses found.

    Attributes:
        ours: our numbers beside the paper's.
        tables: further tables.
        figures: files in the folder of the results, the PNG of each figure, with a caption.
        notes: sentences for the report.
        numbers: anything else for ``results.json``.
    """

    ours: list[Ours] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Append another analysis's findings."""
        self.ours += other.ours
        self.tables += other.tables
        self.figures += other.figures
        self.notes += other.notes
        self.numbers |= other.numbers


@dataclass(frozen=True)
class Context:
    """What an analysis may look at.

    Attributes:
        trained: all finished trainings of the study at this scale.
        sets: the images that were coded.
        output: folder for figures: small files that are kept.
        work: folder for files that can be made again.
        device: where networks run.
        measured: rows of the images of all sets.
        anchors: gives the RD curves of real codecs on a set, by family; they are measured where they are missing.
        published: RD curves of others by set and name.
        jobs: processes at a time.
    """

    study: Study
    scale: Scale
    trained: Sequence[Training]
    sets: Sequence[ImageSet]
    output: Path
    work: Path
    device: str
    measured: MeasuredRows
    anchors: Callable[[ImageSet, Sequence[str]], list[RDCurve]]
    published: Mapping[str, Mapping[str, RDCurve]] = field(default_factory=dict)
    jobs: int = 1

    def of(self, name: str, seed: int | None = None) -> list[Training]:
        """The finished trainings of a run, of one seed or of all, by falling lambda (rising rate)."""
        found = [one for one in self.trained if one.run.name == name and seed in (None, one.seed)]
        return sorted(found, key=lambda one: (-one.lmbda, one.seed))

    def qualities(self, trained: Training) -> list[float | None]:
        """The qualities that a model of all rates was measured at, rising; None alone for one of one rate."""
        return sorted(self.measured.get(trained.folder, {None: {}}), key=lambda quality: quality or 0)

    def rows(self, trained: Training, images: ImageSet, quality: float | None = None) -> list[Row]:
        """One row for every image of a set, in the set's order and under its file names.

        Args:
            quality: of a model of all rates; None: the one in the middle of those measured.

        Raises:
            DataError: an image was not measured.
        """
        qualities = self.qualities(trained)
        at = qualities[len(qualities) // 2] if quality is None else quality
        known = self.measured.get(trained.folder, {}).get(at, {})
        if not known.keys() >= set(images.hashes):
            raise DataError(
                f"{trained.folder}: no rows of {images}; repeat the command, which measures what is missing"
            )
        return [{**known[digest], "image": path.name} for path, digest in zip(images.paths, images.hashes, strict=True)]

    def curve(self, names: Sequence[str], images: ImageSet, label: str | None = None) -> RDCurve | None:
        """RD curve of the first seed of one run or of several together on a set; None where there is no point."""
        runs = [run for run in self.scale.runs if run.name in names]
        points = [one for run in runs for one in self.of(run.name, run.seeds[0])]
        if not points:
            return None
        rows = [
            (point_name(one.lmbda, quality), self.rows(one, images, quality))
            for one in points
            for quality in self.qualities(one)
        ]
        return curve_from_rows(label or runs[0].label, rows)

    def label(self, name: str) -> str:
        """How tables speak of a run."""
        return next((run.label for run in self.scale.runs if run.name == name), name)

    def any_of(self, name: str, lmbda: float | None = None) -> Training:
        """One finished training of a run, at ``lmbda`` where it is given.

        Raises:
            DataError: there is none.
        """
        found = [one for one in self.of(name) if lmbda in (None, one.lmbda)]
        if not found:
            raise DataError(f"{self.study.name}: no training of {name} is finished, which this analysis needs")
        return found[0]


def point_name(lmbda: float, quality: float | None = None) -> str:
    """What made a point of a curve, as its ``parameter`` says it."""
    return f"lmbda {lmbda:g}" if quality is None else f"quality {quality:g}"


def steps_text(trained: Sequence[Training]) -> str:
    """Steps of trainings as a table shows them: ``20000 + 5000``, several variants separated by a comma."""
    texts = [" + ".join(map(str, one.steps)) for one in trained]
    return ", ".join(dict.fromkeys(texts)) or "none"
