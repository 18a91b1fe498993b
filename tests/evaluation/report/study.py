"""A small study: two pictures, one model with four points, one anchor, decoded pictures kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jointiq.data.images import write_png
from jointiq.evaluation.metrics import psnr
from jointiq.evaluation.pictures import PictureFolder
from jointiq.evaluation.rd import curve_from_rows, write_rd
from tests.conftest import photo

NAMES = ("one.png", "two.png")
SIZE = (96, 160)
MODEL, ANCHOR = "our model", "JPEG <old>"


def make_study(folder: Path) -> Path:
    """Write ``results/ours.json``, ``results/anchors/jpeg.json`` and ``images/``; give ``results``."""
    originals = {name: photo(*SIZE, seed=i) for i, name in enumerate(NAMES)}
    for name, image in originals.items():
        write_png(folder / "images" / name, image)
    results = folder / "results"
    _curve(results / "ours.json", MODEL, originals, [(f"{i}.ckpt", 0.2 * 2**i, 12.0 / 2**i) for i in range(4)])
    _curve(results / "anchors" / "jpeg.json", ANCHOR, originals, [(q, 0.19 * 1.5**q, 16.0 / 1.4**q) for q in range(8)])
    return results


def _curve(path: Path, name: str, originals: dict[str, np.ndarray], points: list[tuple[object, float, float]]) -> None:
    """A codec that adds noise: (parameter, bpp of the first image, noise in levels)."""
    pictures = PictureFolder(path.parents[1] / "pictures", path.parent)
    rng = np.random.default_rng(len(name))
    rows: list[tuple[object, list[dict[str, object]]]] = []
    for parameter, bpp, noise in points:
        of_point: list[dict[str, object]] = []
        for i, (image, original) in enumerate(originals.items()):
            decoded = np.clip(original + rng.normal(0, noise, original.shape), 0, 255).round().astype(np.uint8)
            of_point.append(
                {
                    "checkpoint" if isinstance(parameter, str) else "setting": parameter,
                    "image": image,
                    "width": SIZE[1],
                    "height": SIZE[0],
                    "bytes": 1000,
                    "bpp": bpp * (1 + 0.3 * i),
                    "psnr": psnr(original, decoded),
                    "ms_ssim": None,
                    "picture": pictures.keep(decoded, f"{name}-{parameter}", image),
                }
            )
        rows.append((parameter, of_point))
    curve = curve_from_rows(name, rows)
    write_rd(path, curve.with_about({"version": "1.0 & more", "knob": "quality"} if "JPEG" in name else {}))
