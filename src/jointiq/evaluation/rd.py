"""Rate-distortion curves: from per-image rows to points, and the JSON file in which they are exchanged (RD file).

The format is CompressAI's: ``{"name", "description", "results": {"bpp": [], "psnr-rgb": [], "ms-ssim-rgb": [],
"encoding_time": [], "decoding_time": []}}``, one entry per point, sorted by bpp, MS-SSIM linear, seconds per image.
Ours adds keys that CompressAI's tools ignore: further lists in ``results`` (``bpp-payload``, ``bpp-estimate``,
``psnr-rgb-mid``), ``parameter`` (checkpoint or setting of each point), ``about`` (version, settings, ... of an anchor)
and ``images`` (one row per image and point).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

from jointiq.errors import DataError
from jointiq.evaluation.metrics import mean
from jointiq.files import finite, read_json, write_text

PSNR = "psnr-rgb"
MS_SSIM = "ms-ssim-rgb"
#: Column of a row -> key in ``results``.
RESULT_KEYS = {
    "bpp": "bpp",
    "psnr": PSNR,
    "ms_ssim": MS_SSIM,
    "encoding_time": "encoding_time",
    "decoding_time": "decoding_time",
    "bpp_payload": "bpp-payload",
    "bpp_exact": "bpp-exact",
    "bpp_estimate": "bpp-estimate",
    "psnr_mid": "psnr-rgb-mid",
}

#: Types of the rows' labels and of keys in ``about``, where they are present.
_LABELS = {
    "image": str, "width": int | None, "height": int | None, "lmbda": int | float, "seed": int,
    "quality": int | float | None,
}  # fmt: skip
_ABOUT = {"curve": str, "experiment": str | None, "typed": list | None}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ImageRow:
    """One image coded to a real file with one checkpoint.

    Attributes:
        bytes, bpp: size of the whole file.
        bpp_payload: of its entropy-coded part.
        bpp_exact: of an ideal coder with the integer probabilities; None where the model has none.
        bpp_estimate: the model's float likelihood estimate, the sum of ``bpp_y`` and ``bpp_z``.
        psnr, psnr_mid: dB, of the final output and of the compression network's output before enhancement.
        ms_ssim: linear; None for images too small for it.
        encoding_time, decoding_time: seconds.
        latents_equal: the decoder got the encoder's latents.
    """

    checkpoint: str
    image: str
    width: int
    height: int
    bytes: int
    bpp: float
    bpp_payload: float
    bpp_exact: float | None
    bpp_estimate: float
    bpp_y: float
    bpp_z: float
    psnr: float
    psnr_mid: float
    ms_ssim: float | None
    encoding_time: float
    decoding_time: float
    latents_equal: bool


@dataclass(frozen=True)
class RDCurve:
    """A rate-distortion curve; ``results`` has one number per point for each key of the RD file, sorted by bpp."""

    name: str
    results: Mapping[str, tuple[float, ...]]
    description: str = ""
    parameter: tuple[Any, ...] = ()
    images: tuple[Row, ...] = field(default=(), repr=False)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.bpp)

    @property
    def bpp(self) -> tuple[float, ...]:
        """Bits per pixel of each point, ascending."""
        return self.results["bpp"]

    def between(self, lowest: float, highest: float) -> RDCurve:
        """Return the curve of the points with rates from ``lowest`` to ``highest`` bpp, without the rows of images."""
        inside = [lowest <= bpp <= highest for bpp in self.bpp]
        results = {key: tuple(compress(values, inside)) for key, values in self.results.items()}
        return replace(self, results=results, parameter=tuple(compress(self.parameter, inside)), images=())

    def with_about(self, about: Mapping[str, Any]) -> RDCurve:
        """Return the curve with another ``about``."""
        return replace(self, about=about)


def curve_from_rows(
    name: str, points: Sequence[tuple[Any, Sequence[ImageRow] | Sequence[Row]]], description: str = ""
) -> RDCurve:
    """Average per-image rows into a curve.

    Args:
        name: what a legend shows.
        points: for each point its parameter (checkpoint, quality setting, ...) and its rows.
        description: free text for the file.

    Every number is the mean over the point's images. A key that not every point has (MS-SSIM where all images are
    small) is left out, because CompressAI's tools cannot read gaps.
    """
    tables = [
        (parameter, [asdict(r) if isinstance(r, ImageRow) else dict(r) for r in rows]) for parameter, rows in points
    ]
    means = [
        (parameter, {key: mean(row.get(column) for row in rows) for column, key in RESULT_KEYS.items()}, rows)
        for parameter, rows in tables
    ]
    means.sort(key=lambda point: point[1]["bpp"] or 0.0)
    results: dict[str, tuple[float, ...]] = {}
    for key in RESULT_KEYS.values():
        values = [point[key] for _, point, _ in means]
        if None not in values:
            results[key] = tuple(value for value in values if value is not None)
    return RDCurve(
        name=name,
        results=results,
        description=description,
        parameter=tuple(parameter for parameter, _, _ in means),
        images=tuple(row for _, _, rows in means for row in rows),
    )


def write_rd(path: str | Path, curve: RDCurve) -> list[Path]:
    """Write ``curve`` as JSON to ``path``, and its per-image rows, if any, as CSV beside it; return the paths."""
    path = Path(path)
    document: dict[str, Any] = {
        "name": curve.name,
        "description": curve.description,
        "results": {key: list(values) for key, values in curve.results.items()},
    }
    if curve.parameter:
        document["parameter"] = list(curve.parameter)
    if curve.about:
        document["about"] = dict(curve.about)
    if curve.images:
        document["images"] = [dict(row) for row in curve.images]
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if not curve.images:
        return [path]
    table = path.with_suffix(".csv")
    write_text(table, rows_as_csv(curve.images))
    return [path, table]


def rows_as_csv(rows: Sequence[Row]) -> str:
    """Return rows with the same keys as CSV text with a header; None becomes an empty field."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read_rd(path: str | Path) -> RDCurve:
    """Read one of our RD files or of CompressAI's, sorted by bpp.

    Accepted: the form above; bare ``results`` without a name (then the file's stem is the name); one number instead of
    a list (CompressAI's per-image files). Lists of text in ``results`` are ignored. A folder stands for the per-image
    files of CompressAI in it (:func:`read_per_image`).

    Raises:
        DataError: no such file, not JSON, or a schema that cannot be a curve; the message names file and key.
    """
    path = Path(path)
    if path.is_dir():
        return read_per_image(path)
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("results", document), dict):
        raise DataError(f'{path} is no RD file: expected {{"name", "results": {{"bpp": [...], "psnr-rgb": [...]}}}}')
    raw = document.get("results", document)
    if "bpp" not in raw:
        raise DataError(f'{path} has no "bpp" in its results; found: {", ".join(map(str, raw)) or "nothing"}')
    columns = {key: _numbers(path, key, values) for key, values in raw.items() if _is_column(values)}
    count = len(columns.get("bpp", ()))
    if not count:
        raise DataError(f'{path}: "bpp" holds no numbers')
    for key, values in columns.items():
        if len(values) != count:
            raise DataError(f'{path}: "{key}" has {len(values)} values but "bpp" has {count}')
    if min(columns["bpp"]) <= 0:
        raise DataError(f'{path}: "bpp" must be positive, found {min(columns["bpp"])}')
    if max(columns.get(MS_SSIM, [0.0])) > 1:
        raise DataError(f'{path}: "{MS_SSIM}" must be linear (at most 1), found {max(columns[MS_SSIM])}')
    about = document.get("about")
    if isinstance(about, dict):
        _check_kinds(path, "about", about, _ABOUT)
    order = sorted(range(count), key=lambda i: columns["bpp"][i])
    parameter = document.get("parameter")
    images = document.get("images")
    return RDCurve(
        name=str(document.get("name", path.stem)),
        description=str(document.get("description", "")),
        results={key: tuple(values[i] for i in order) for key, values in columns.items()},
        parameter=tuple(parameter[i] for i in order) if isinstance(parameter, list) and len(parameter) == count else (),
        images=_rows(path, images) if isinstance(images, list) else (),
        about=about if isinstance(about, dict) else {},
    )


def read_per_image(folder: str | Path) -> RDCurve:
    """Read the curve of the per-image files in ``folder``, written by CompressAI's ``eval_model --per-image``.

    Such a file is called IMAGE-CHECKPOINT.json and names its image as ``source``. Every checkpoint is a point, the mean
    over its images. Other files are ignored.

    Raises:
        DataError: no such files, files of several models, or one that cannot be read.
    """
    folder = Path(folder)
    points: dict[str, list[Row]] = {}
    names = set()
    for path in sorted(folder.rglob("*.json")):
        document = read_json(path)
        source = document.get("source") if isinstance(document, dict) else None
        if not isinstance(source, str):
            continue
        one = read_rd(path)
        names.add(one.name)
        point = path.stem.removeprefix(f"{source}-")
        image = (path.parent.relative_to(folder) / source).as_posix()
        values = {column: one.results[key][0] for column, key in RESULT_KEYS.items() if key in one.results}
        points.setdefault(point, []).append({"checkpoint": point, "image": image, **values})
    if not points:
        raise DataError(f"{folder} holds no per-image results; allowed: an RD file, or files of eval_model --per-image")
    if len(names) > 1:
        raise DataError(f"{folder} holds per-image results of several models: {', '.join(sorted(names))}; allowed: one")
    return curve_from_rows(names.pop(), list(points.items()))


def _rows(path: Path, images: Sequence[object]) -> tuple[Row, ...]:
    """Return the per-image rows of an RD file, after checking that their numbers are finite."""
    for row in images:
        if not isinstance(row, dict):
            raise DataError(f'{path}: "images" holds {row!r}; expected one row of columns for each image and point')
        _check_kinds(path, "images", row, _LABELS)
        for column in RESULT_KEYS.keys() & {key for key, value in row.items() if value is not None}:
            _numbers(path, f"images: {column}", [row[column]])
        if row.get("bpp") is not None and row["bpp"] <= 0:
            raise DataError(f'{path}: "images: bpp" must be positive, found {row["bpp"]}')
    return tuple(row for row in images if isinstance(row, dict))


def _check_kinds(path: Path, key: str, values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    for name in kinds.keys() & values.keys():
        value, kind = values[name], kinds[name]
        if not isinstance(value, kind) or (isinstance(value, float) and finite(value) is None):
            raise DataError(f'{path}: "{key}: {name}" is {value!r}; expected {getattr(kind, "__name__", kind)}')


def _is_column(values: object) -> bool:
    """Return whether ``values`` is a number or a list of them, and not text or anything nested."""
    values = values if isinstance(values, list) else [values]
    return bool(values) and not any(isinstance(value, str | dict | list) for value in values)


def _numbers(path: Path, key: str, values: object) -> list[float]:
    numbers = []
    for value in values if isinstance(values, list) else [values]:
        number = finite(value)
        if number is None:
            raise DataError(f'{path}: "{key}" holds {value!r}; expected finite numbers')
        numbers.append(number)
    return numbers
