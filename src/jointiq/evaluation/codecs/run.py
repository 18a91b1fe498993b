"""Measure real codecs over many images, and write one RD file for each codec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jointiq.errors import DataError
from jointiq.evaluation.codecs.anchors import Codec, code, point_row
from jointiq.evaluation.measuring import Measured, measure
from jointiq.evaluation.metrics import Image
from jointiq.evaluation.pictures import PictureFolder
from jointiq.evaluation.rd import Row, curve_from_rows, write_rd


@dataclass(frozen=True)
class CodecMaker:
    """A codec at a setting as a :class:`jointiq.evaluation.measuring.Maker`."""

    codec: Codec
    setting: float

    @property
    def name(self) -> str:
        """Codec and setting."""
        return f"{self.codec.name}_{self.setting:g}"

    @property
    def labels(self) -> Mapping[str, Any]:
        """Columns of every row with codec and setting."""
        return {"codec": self.codec.name, "setting": self.setting}

    def identity(self) -> dict[str, Any]:
        """Return codec, version, options and setting."""
        return {**self.codec.about(), "setting": self.setting}

    def measure(self, name: str, image: Image) -> tuple[Row, Image | None]:
        """Return the row (:func:`point_row`) and the decoded picture."""
        point = code(self.codec, image, self.setting)
        return point_row(name, point), point.image


@dataclass
class Anchored:
    """Result of :func:`run_anchors`: files written, failures (``CODEC IMAGE: reason``), rows reused of earlier runs."""

    files: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    reused: int = 0


def run_anchors(
    codecs: Sequence[tuple[Codec, tuple[float, ...]]],
    images: Sequence[tuple[str, Path]],
    folder: Path,
    workers: int = 1,
    advance: Callable[[Measured], object] = lambda measured: None,
    pictures: Path | None = None,
    cache: Path | None = None,
) -> Anchored:
    """Code ``images`` (name, path) with every codec at its settings, and write ``folder/CODEC.json`` (and ``.csv``).

    The files of a codec are written as soon as all of its images are done. A codec that fails on an image is reported
    and has no files, because a mean over other images cannot be compared.

    Args:
        workers, advance: see :func:`jointiq.evaluation.measuring.measure`.
        pictures: folder for the decoded pictures, as PNG files named in the rows' ``picture``; None: do not keep them.
        cache: folder of the rows for a repeated run; None: ``folder/.rows``.

    Raises:
        DataError: two images with the same name.
        UserError: ``folder`` cannot be written.
    """
    names = [name for name, _ in images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(f"two images are named {twice}; allowed: names that differ")
    run = Anchored()
    chosen = {codec.name: (codec, settings) for codec, settings in codecs}
    found: dict[str, dict[tuple[float, str], Measured]] = {codec.name: {} for codec, _ in codecs}

    def one(measured: Measured) -> None:
        codec, settings = chosen[measured.maker.codec.name]
        of_codec = found[codec.name]
        of_codec[measured.maker.setting, measured.image] = measured
        run.reused += measured.reused
        advance(measured)
        if len(of_codec) == len(settings) * len(images):
            failed = {done.image: done.problem for done in of_codec.values() if done.problem}
            run.failures += [f"{codec.name} {image}: {problem}" for image, problem in failed.items()]
            if not failed:
                points = [(setting, [of_codec[setting, name].row for name in names]) for setting in settings]
                run.files += _write(folder, codec, points)

    makers = [CodecMaker(codec, setting) for codec, settings in codecs for setting in settings]
    kept = PictureFolder(pictures, folder) if pictures else None
    measure(makers, images, cache or folder / ".rows", workers, one, kept)
    return run


def _write(folder: Path, codec: Codec, points: Sequence[tuple[float, Any]]) -> list[Path]:
    description = f"{codec.version}; knob: {codec.knob}; whole files; PSNR against the original 8-bit RGB"
    curve = curve_from_rows(codec.label, points, description)
    settings = [setting for setting, _ in points]
    about = {**codec.about(), "settings": settings, "quality": "against the original 8-bit RGB, mean over images"}
    return write_rd(folder / f"{codec.name}.json", curve.with_about(about))
