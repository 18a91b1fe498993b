"""Find the real codecs of this installation, by family: those inside Pillow, plug-ins of Pillow, and programs.

A family (``jpeg``) has one or more codecs (``jpeg_420``, ``jpeg_444``), each of which is one RD curve.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from PIL import Image as PillowImage
from PIL import features

from jointiq.errors import ConfigError
from jointiq.evaluation.codecs.anchors import CODECS, Codec, pillow_decode, pillow_version
from jointiq.evaluation.codecs.programs import program_codec
from jointiq.evaluation.metrics import Image

#: Family -> its codecs.
FAMILIES: dict[str, tuple[str, ...]] = {
    "jpeg": ("jpeg_420", "jpeg_444"),
    "jpeg2000": ("jpeg2000", "jpeg2000_db"),
    "webp": ("webp",),
    "avif": ("avif_420", "avif_444"),
    "heif": ("heif_420", "heif_444"),
    "jxl": ("jxl",),
    "bpg": ("bpg",),
    "vvenc": ("vvenc",),
    "vtm": ("vtm",),
}


@dataclass(frozen=True)
class Found:
    """The codecs that can run, and the absent families with the reason for each (one line)."""

    codecs: tuple[Codec, ...]
    absent: Mapping[str, str] = field(default_factory=dict)


def find_codecs(wanted: Sequence[str], programs: Mapping[str, str | None]) -> Found:
    """Find the codecs of the families in ``wanted``; ``programs`` holds paths of programs, None: search the PATH.

    Raises:
        ConfigError: an unknown family, or the path of a program that does not exist.
    """
    codecs: list[Codec] = []
    absent: dict[str, str] = {}
    for family in dict.fromkeys(wanted):
        if family not in FAMILIES:
            raise ConfigError("codecs", family, FAMILIES)
        found = _family(family, programs)
        if isinstance(found, str):
            absent[family] = found
        else:
            codecs += found
    return Found(tuple(codecs), absent)


def _family(family: str, programs: Mapping[str, str | None]) -> list[Codec] | str:
    if family in ("jpeg", "jpeg2000"):
        feature = "jpg" if family == "jpeg" else "jpg_2000"
        missing = f"this Pillow is built without {family.upper()}"
        return [CODECS[name] for name in FAMILIES[family]] if features.check(feature) else missing
    finders: dict[str, Callable[[], list[Codec] | str]] = {"webp": _webp, "avif": _avif, "heif": _heif, "jxl": _jxl}
    if family in finders:
        return finders[family]()
    codec = program_codec(family, programs)
    return codec if isinstance(codec, str) else [codec]


def _save(image: Image, setting: float, *, kind: str, options: Mapping[str, Any], plugin: str | None = None) -> bytes:
    """Return ``image`` as a file of the format ``kind`` by Pillow; ``plugin`` is the module that adds the format."""
    _load(plugin)
    stream = io.BytesIO()
    # A copy: pillow-heif writes into the options it is given.
    PillowImage.fromarray(image).save(stream, kind, quality=int(setting), **deepcopy(dict(options)))
    return stream.getvalue()


def _open(data: bytes, *, plugin: str) -> Image:
    _load(plugin)
    return pillow_decode(data)


def _load(plugin: str | None) -> None:
    if plugin:
        module = import_module(plugin)
        if plugin == "pillow_heif":  # the others register themselves
            module.register_heif_opener()


def _command(kind: str, options: Mapping[str, object]) -> str:
    return f'Image.save(FILE, "{kind}", quality=SETTING, ' + ", ".join(f"{k}={v!r}" for k, v in options.items()) + ")"


def _webp() -> list[Codec] | str:
    if not features.check("webp"):
        return "this Pillow is built without WebP"
    return [
        Codec(
            "webp",
            "WebP",
            "quality",
            partial(_save, kind="WEBP", options={"method": 6}),
            (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95),
            0,
            100,
            step=1,
            options={"method": 6},
            colour="YCbCr BT.601 limited range, 4:2:0, 8 bit",
            command=_command("WEBP", {"method": 6}),
            version=pillow_version("webp"),
        )
    ]


def _avif() -> list[Codec] | str:
    plugin = None
    made_by = ""
    if "avif" in features.modules and features.check("avif"):
        made_by = pillow_version("avif")
    elif find_spec("pillow_avif"):
        plugin = "pillow_avif"
        made_by = f"Pillow {PillowImage.__version__}, pillow-avif-plugin {version('pillow-avif-plugin')}"
    else:
        return "this Pillow is built without AVIF, and pillow-avif-plugin is not installed"
    codecs = []
    for chroma in ("4:2:0", "4:4:4"):
        # tune=psnr, because PSNR against the original is measured.
        options: dict[str, Any] = {
            "subsampling": chroma,
            "speed": 6,
            "codec": "aom",
            "max_threads": 1,
            "advanced": {"tune": "psnr"},
        }
        codecs.append(
            Codec(
                f"avif_{chroma.replace(':', '')}",
                f"AVIF {chroma}",
                "quality",
                partial(_save, kind="AVIF", plugin=plugin, options=options),
                (8, 18, 28, 38, 48, 58, 68, 80),
                0,
                100,
                step=1,
                decode=partial(_open, plugin=plugin) if plugin else pillow_decode,
                options=options,
                colour=f"YCbCr BT.601 full range, {chroma}, 8 bit",
                command=_command("AVIF", options),
                version=made_by,
            )
        )
    return codecs


def _heif() -> list[Codec] | str:
    if not find_spec("pillow_heif"):
        return "pillow-heif is not installed: pip install -c constraints.txt -e '.[anchors]'"
    pillow_heif = import_module("pillow_heif")
    if not pillow_heif.libheif_info()["HEIF"]:
        return "this pillow-heif has no HEVC encoder"
    codecs = []
    for chroma in ("4:2:0", "4:4:4"):
        number = int(chroma.replace(":", ""))
        options: dict[str, Any] = {"chroma": number, "enc_params": {"preset": "slow", "tune": "psnr"}}
        codecs.append(
            Codec(
                f"heif_{number}",
                f"HEVC intra (HEIF) {chroma}",
                "quality",
                partial(_save, kind="HEIF", plugin="pillow_heif", options=options),
                (6, 16, 26, 34, 42, 50, 60),
                0,
                100,
                step=1,
                decode=partial(_open, plugin="pillow_heif"),
                options=options,
                colour=f"YCbCr BT.601 full range, {chroma}, 8 bit",
                command=_command("HEIF", options),
                version=f"pillow-heif {pillow_heif.__version__}, libheif {pillow_heif.libheif_version()}, "
                f"{pillow_heif.libheif_info()['HEIF']}",
            )
        )
    return codecs


def _jxl() -> list[Codec] | str:
    if not find_spec("pillow_jxl"):
        return "pillow-jxl-plugin is not installed"
    options: dict[str, Any] = {"effort": 7, "num_threads": 1}
    return [
        Codec(
            "jxl",
            "JPEG XL",
            "quality",
            partial(_save, kind="JXL", plugin="pillow_jxl", options=options),
            (5, 10, 20, 30, 40, 50, 60, 70, 80, 90),
            1,
            99,
            step=1,
            decode=partial(_open, plugin="pillow_jxl"),
            options=options,
            colour="XYB",
            command=_command("JXL", options),
            version=f"Pillow {PillowImage.__version__}, pillow-jxl-plugin {version('pillow-jxl-plugin')}",
        )
    ]
