"""Input and output of an analysis: :class:`Context` and :class:`Findings`."""

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

#: Measured rows by :attr:`Training.measured_as`, quality (None: a model of one rate), and hash of the image's pixels.
MeasuredRows = Mapping[tuple[Path, int], Mapping[float | None, Mapping[str, Row]]]


@dataclass(frozen=True)
class Ours:
    """Our result for a value of the paper.

    Attributes:
        value: name of the paper's value.
        text: our number as a table shows it.
        numbers: the same for ``results.json``.
        measured_on: the images, as text.
        steps: optimizer steps of the training, as text.
        verdict: how our number compares with the paper's.
    """

    value: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    measured_on: str = "no images"
    steps: str = "none"
    verdict: str = ""


@dataclass
class Findings:
    """Results of analyses.

    Attributes:
        ours: our results for values of the paper.
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
        """Add the findings of another analysis."""
        self.ours += other.ours
        self.tables += other.tables
        self.figures += other.figures
        self.notes += other.notes
        self.numbers |= other.numbers


@dataclass(frozen=True)
class Context:
    """Input of an analysis.

    Attributes:
        trained: all finished trainings of the study at this scale.
        sets: the images that were coded.
        output: folder for figures and other small files that are kept.
        work: folder for files that can be made again.
        device: device of the networks.
        measured: rows of the images of all sets.
        anchors: returns the RD curves of families of real codecs on a set, and measures them if they are missing.
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
        """Return the finished trainings of a run, of one seed or of all, by falling lambda (rising rate)."""
        found = [one for one in self.trained if one.run.name == name and seed in (None, one.seed)]
        return sorted(found, key=lambda one: (-one.lmbda, one.seed))

    def qualities(self, trained: Training) -> list[float | None]:
        """Return the qualities at which a model of all rates was measured, rising; [None] for a model of one rate."""
        return sorted(self.measured.get(trained.measured_as, {None: {}}), key=lambda quality: quality or 0)

    def rows(self, trained: Training, images: ImageSet, quality: float | None = None) -> list[Row]:
        """Return the row of every image of a set, in the set's order and with its file names.

        Args:
            quality: of a model of all rates; None: the middle one of those measured.

        Raises:
            DataError: an image was not measured.
        """
        qualities = self.qualities(trained)
        at = qualities[len(qualities) // 2] if quality is None else quality
        known = self.measured.get(trained.measured_as, {}).get(at, {})
        if not known.keys() >= set(images.hashes):
            raise DataError(
                f"{trained.folder}: no rows of {images}; repeat the command, which measures what is missing"
            )
        return [{**known[digest], "image": path.name} for path, digest in zip(images.paths, images.hashes, strict=True)]

    def curve(self, names: Sequence[str], images: ImageSet, label: str | None = None) -> RDCurve | None:
        """Return the RD curve on a set of the first seed of one run, or of several together; None without points."""
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
        """Return the name of a run in tables."""
        return next((run.label for run in self.scale.runs if run.name == name), name)

    def any_of(self, name: str, lmbda: float | None = None) -> Training:
        """Return a finished training of a run, at ``lmbda`` if that is given.

        Raises:
            DataError: there is none.
        """
        found = [one for one in self.of(name) if lmbda in (None, one.lmbda)]
        if not found:
            raise DataError(f"{self.study.name}: no training of {name} is finished, which this analysis needs")
        return found[0]


def point_name(lmbda: float, quality: float | None = None) -> str:
    """Return the ``parameter`` of a curve's point."""
    return f"lmbda {lmbda:g}" if quality is None else f"quality {quality:g}"


def steps_text(trained: Sequence[Training]) -> str:
    """Return the steps of trainings as text, different ones separated by a comma.

    ``20000 + 5000``; of more than four trainings in a row their sum, ``69685 in 9 trainings``.
    """
    texts = []
    for steps in (one.steps for one in trained):
        chain = " + ".join(map(str, steps))
        texts.append(f"{sum(steps)} in {len(steps)} trainings" if len(steps) > 4 else chain)
    return ", ".join(dict.fromkeys(texts)) or "none"
