"""Anchors that are external programs: BPG and VTM through CompressAI's benchmark codecs, VVenC directly."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from jointiq.errors import ConfigError, DataError
from jointiq.evaluation.codecs.anchors import Codec, Coded
from jointiq.evaluation.metrics import Image

#: Config keys under ``programs``.
PROGRAMS = ("bpgenc", "bpgdec", "vvencapp", "vvdecapp", "vtm", "vtm_config")
_PEAK10 = 1023.0
_QPS = (47, 42, 37, 32, 27, 22)


@dataclass(frozen=True)
class ProgramCodec(Codec):
    """A codec whose encoder and decoder are run together, by ``whole(image, setting)``."""

    whole: Callable[[Image, float], Coded] | None = None

    def size(self, image: Image, setting: float) -> int:
        """Return the bytes of a file of ``image`` (uint8, (H, W, 3))."""
        return self.roundtrip(image, setting).size

    def roundtrip(self, image: Image, setting: float) -> Coded:
        """Encode and decode ``image`` (uint8, (H, W, 3))."""
        assert self.whole is not None
        return self.whole(image, setting)


def _no_bytes(image: Image, setting: float) -> bytes:
    raise NotImplementedError("this codec tells its file's size only: see Codec.roundtrip")


def program_codec(family: str, programs: Mapping[str, str | None]) -> ProgramCodec | str:
    """Return the codec of ``family`` (bpg, vvenc, vtm), or the reason why it is absent.

    Raises:
        ConfigError: a given path does not exist.
    """
    return {"bpg": _bpg, "vvenc": _vvenc, "vtm": _vtm}[family](programs)


def _find(programs: Mapping[str, str | None], key: str) -> str | None:
    """Return the path of a program: as given, else from the PATH; None: not found."""
    given = programs.get(key)
    if not given:
        return shutil.which(key)
    if not os.access(given, os.X_OK) or not Path(given).is_file():
        raise ConfigError(f"programs.{key}", given, "the path of a program that can be run")
    return str(Path(given).resolve())


def _missing(*keys: str) -> str:
    return f"{' and '.join(keys)} not found on the PATH; " + " ".join(f"programs.{key}=PATH" for key in keys)


def _version(*command: str) -> str:
    """Return the first line of a program's output with its version, else its first line."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return next((line for line in lines if "version" in line.lower()), lines[0] if lines else "unknown")


def _bpg(programs: Mapping[str, str | None]) -> ProgramCodec | str:
    encoder, decoder = _find(programs, "bpgenc"), _find(programs, "bpgdec")
    if not encoder or not decoder:
        return _missing("bpgenc", "bpgdec")
    arguments = {"m": "444", "b": "8", "c": "ycbcr", "e": "x265", "encoder_path": encoder, "decoder_path": decoder}
    return ProgramCodec(
        "bpg",
        "BPG 4:4:4",
        "quantiser",
        _no_bytes,
        _QPS,
        51,
        0,
        step=1,
        options={"chroma": "4:4:4", "bit_depth": 8, "encoder": "x265"},
        colour="YCbCr BT.601 full range, 4:4:4, 8 bit",
        command="bpgenc -o FILE -q SETTING -f 444 -e x265 -c ycbcr -b 8 IN.png; bpgdec -o OUT.png FILE",
        version=_version(encoder, "-h"),
        whole=partial(_compressai, "BPG", arguments),
    )


def _vtm(programs: Mapping[str, str | None]) -> ProgramCodec | str:
    folder, config = programs.get("vtm"), programs.get("vtm_config")
    if folder:
        names = [name for name in ("EncoderAppStatic", "DecoderAppStatic") if not (Path(folder) / name).is_file()]
        if names:
            raise ConfigError(
                "programs.vtm", folder, f"the folder of EncoderAppStatic and DecoderAppStatic; no {names[0]}"
            )
    else:
        encoder = shutil.which("EncoderAppStatic")
        if not encoder or not (Path(encoder).parent / "DecoderAppStatic").is_file():
            return "EncoderAppStatic and DecoderAppStatic not found on the PATH; programs.vtm=FOLDER"
        folder = str(Path(encoder).parent)
    config = config or str(Path(folder).resolve().parent / "cfg" / "encoder_intra_vtm.cfg")
    if not Path(config).is_file():
        if programs.get("vtm_config"):
            raise ConfigError("programs.vtm_config", config, "VTM's encoder_intra_vtm.cfg")
        return "its encoder_intra_vtm.cfg not found; programs.vtm_config=FILE"
    folder, config = str(Path(folder).resolve()), str(Path(config).resolve())
    return ProgramCodec(
        "vtm",
        "VTM 4:4:4",
        "QP",
        _no_bytes,
        _QPS,
        63,
        0,
        step=1,
        options={"config": Path(config).name, "chroma": "4:4:4", "input_bit_depth": 8},
        colour="YCbCr BT.709 full range, 4:4:4, 8 bit in and out (converted by CompressAI)",
        command=(
            "EncoderAppStatic -i IN.yuv -c CONFIG -q SETTING -o /dev/null -b FILE -wdt W -hgt H -fr 1 -f 1 "
            "--InputChromaFormat=444 --InputBitDepth=8 --ConformanceWindowMode=1; "
            "DecoderAppStatic -b FILE -o OUT.yuv -d 8"
        ),
        version=_version(str(Path(folder) / "EncoderAppStatic")),
        whole=partial(_compressai, "VTM", {"build_dir": folder, "config": config, "rgb": False}),
    )


def _compressai(kind: str, arguments: Mapping[str, Any], image: Image, setting: float) -> Coded:
    """Code an image with one of CompressAI's benchmark codecs, without its own measurement of quality."""
    # CompressAI and PyTorch are imported late, here and below: finding the programs does not need them.
    from compressai.utils.bench import codecs

    with _scratch() as folder:
        original = folder / "original.png"
        PillowImage.fromarray(image).save(original)
        try:
            # If a program fails, CompressAI prints its output and exits.
            with contextlib.redirect_stdout(io.StringIO()) as said:
                info, picture = getattr(codecs, kind)(Namespace(**arguments)).run(
                    str(original), int(setting), metrics=[], return_rec=True
                )
        except (SystemExit, OSError, ValueError) as error:
            raise DataError(f"{kind} failed at {setting:g}: {said.getvalue().strip() or error}") from error
        size = round(info["bpp"] * image.shape[0] * image.shape[1] / 8)
        return Coded(size, np.asarray(picture.convert("RGB")), info["encoding_time"], info["decoding_time"])


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a temporary folder, which also takes all other temporary files made while the context lasts."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="anchor-") as name:
        tempfile.tempdir = name
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = before


def _vvenc(programs: Mapping[str, str | None]) -> ProgramCodec | str:
    encoder, decoder = _find(programs, "vvencapp"), _find(programs, "vvdecapp")
    if not encoder or not decoder:
        return _missing("vvencapp", "vvdecapp")
    return ProgramCodec(
        "vvenc",
        "VVC (VVenC) 4:2:0",
        "QP",
        _no_bytes,
        _QPS,
        63,
        0,
        step=1,
        options={"preset": "medium", "qpa": 0, "chroma": "4:2:0", "bit_depth": 10},
        colour="YCbCr BT.709 full range, 4:2:0 (mean down, bilinear up), 10 bit",
        command=(
            "vvencapp -i IN.yuv -s WxH -c yuv420_10 -r 1 -f 1 --preset medium -q SETTING --qpa 0 -t 1 -o FILE; "
            "vvdecapp -b FILE -o OUT.yuv -t 1"
        ),
        version=_version(encoder, "--version"),
        whole=partial(_vvenc_whole, encoder, decoder),
    )


def _vvenc_whole(encoder: str, decoder: str, image: Image, setting: float) -> Coded:
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    size = f"{even.shape[1]}x{even.shape[0]}"
    with _scratch() as folder:
        source, file, output = folder / "in.yuv", folder / "file.266", folder / "out.yuv"
        source.write_bytes(_to_yuv420(even).tobytes())
        encode = [encoder, "-i", source, "-s", size, "-c", "yuv420_10", "-r", 1, "-f", 1, "--preset", "medium"]
        started = time.perf_counter()
        _run([*encode, "-q", int(setting), "--qpa", 0, "-t", 1, "-o", file])
        encoded = time.perf_counter()
        _run([decoder, "-b", file, "-o", output, "-t", 1])
        finished = time.perf_counter()
        samples = np.fromfile(output, dtype="<u2")
        if samples.size != even.shape[0] * even.shape[1] * 3 // 2:
            raise DataError(f"vvdecapp wrote {samples.size} samples for a picture of {size}")
        picture = _from_yuv420(samples, even.shape[0], even.shape[1])[:height, :width]
        return Coded(file.stat().st_size, picture, encoded - started, finished - encoded)


def _run(command: list[Any]) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise DataError(f"{Path(command[0]).name} failed with exit code {done.returncode}: {told[-1] if told else ''}")


def _to_yuv420(image: Image) -> NDArray[np.uint16]:
    """Return uint8 RGB (H, W, 3), both sides even, as flat 10-bit planes Y, Cb, Cr one after the other (4:2:0)."""
    import torch
    from compressai.transforms.functional import rgb2ycbcr, yuv_444_to_420

    rgb = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None] / 255
    planes = yuv_444_to_420(rgb2ycbcr(rgb))
    levels = [(plane.clamp(0, 1) * _PEAK10).round().flatten().numpy() for plane in planes]
    return np.concatenate(levels).astype("<u2")


def _from_yuv420(samples: NDArray[np.uint16], height: int, width: int) -> Image:
    """Return the RGB image of planes from :func:`_to_yuv420`."""
    import torch
    from compressai.transforms.functional import ycbcr2rgb, yuv_420_to_444

    values = torch.from_numpy(samples.astype(np.float32) / _PEAK10)
    y, cb, cr = values.split([height * width, height * width // 4, height * width // 4])
    half = (1, 1, height // 2, width // 2)
    planes = (y.view(1, 1, height, width), cb.view(half), cr.view(half))
    rgb = ycbcr2rgb(yuv_420_to_444(planes))[0].clamp(0, 1)
    return (rgb * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
