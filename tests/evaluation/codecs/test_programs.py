"""Codecs that are programs, played by stand-ins that keep the picture as it is."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jointiq.errors import ConfigError, DataError
from jointiq.evaluation.codecs.anchors import Codec, nearest_rate
from jointiq.evaluation.codecs.pillow import find_codecs
from jointiq.evaluation.codecs.programs import PROGRAMS, ProgramCodec, _from_yuv420, _to_yuv420
from jointiq.evaluation.metrics import psnr

NONE: dict[str, str | None] = dict.fromkeys(PROGRAMS)
START = (
    f"#!{sys.executable}\nimport sys, shutil\na = sys.argv\nif len(a) < 4: sys.exit(print('Stand-in, version 1.2'))\n"
)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], str]:
    def make(name: str, body: str) -> str:
        path = tmp_path / name
        path.write_text(START + body)
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def the_codec(family: str, **programs: str) -> ProgramCodec:
    found = find_codecs([family], {**NONE, **programs})
    assert not found.absent
    (codec,) = found.codecs
    assert isinstance(codec, ProgramCodec)
    return codec


def test_bpg_is_run_and_its_file_counted(
    program: Callable[[str, str], str], picture: Callable[..., np.ndarray], own_temporary_folder: Path
) -> None:
    # The "file" is the PNG and as many bytes more as the quantiser says less.
    encode = (
        "assert a[1::2][:6] == ['-o', '-q', '-f', '-e', '-c', '-b'], a\n"
        "data = open(a[-1], 'rb').read()\nopen(a[2], 'wb').write(data + bytes(51 - int(a[4])))\n"
        f"open({str(own_temporary_folder.parent / 'size')!r}, 'w').write(str(len(data)))"
    )
    codec = the_codec("bpg", bpgenc=program("enc", encode), bpgdec=program("dec", "shutil.copy(a[3], a[2])"))
    image = picture(31, 45)
    coded = codec.roundtrip(image, 37)
    assert np.array_equal(coded.image, image)
    assert coded.size == int((own_temporary_folder.parent / "size").read_text()) + 14
    assert codec.version == "Stand-in, version 1.2"
    assert list(own_temporary_folder.iterdir()) == []
    # Such a codec can be asked for a rate as well.
    most = codec.roundtrip(image, 0).size
    found = nearest_rate(codec, image, 8 * (most - 20) / (31 * 45))
    assert found.bpp == pytest.approx(8 * (most - 20) / (31 * 45), rel=0.002)


def test_vvenc_pads_odd_sides_and_keeps_the_picture(
    program: Callable[[str, str], str], own_temporary_folder: Path
) -> None:
    encode = "assert a[a.index('-s') + 1] == '36x32', a\nshutil.copy(a[a.index('-i') + 1], a[a.index('-o') + 1])"
    decode = "shutil.copy(a[a.index('-b') + 1], a[a.index('-o') + 1])"
    codec = the_codec("vvenc", vvencapp=program("enc", encode), vvdecapp=program("dec", decode))
    ramp = np.add.outer(np.arange(31) * 3, np.arange(35) * 2).astype(np.uint8)
    image = np.stack([ramp, ramp, ramp], -1)
    coded = codec.roundtrip(image, 32)
    assert coded.image.shape == image.shape
    assert psnr(image, coded.image) > 55
    assert coded.size == 36 * 32 * 3  # 1.5 samples of two bytes
    assert list(own_temporary_folder.iterdir()) == []


def test_conversion_to_420_is_right_in_flat_areas() -> None:
    for colour in ((255, 0, 0), (0, 255, 0), (12, 200, 77)):
        image = np.full((8, 6, 3), colour, np.uint8)
        samples = _to_yuv420(image)
        red, green, blue = (value / 255 for value in colour)
        luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # BT.709
        assert samples[0] == pytest.approx(1023 * luma, abs=0.51)
        assert samples[48] == pytest.approx(1023 * ((blue - luma) / 1.8556 + 0.5), abs=0.6)
        assert np.abs(_from_yuv420(samples, 8, 6).astype(int) - image).max() <= 1


@pytest.mark.parametrize("family", ["bpg", "vvenc"])
def test_a_program_that_fails_is_told(
    family: str, program: Callable[[str, str], str], picture: Callable[..., np.ndarray]
) -> None:
    broken = program("broken", "print('cannot do this'); sys.exit(3)")
    keys = {"bpg": ("bpgenc", "bpgdec"), "vvenc": ("vvencapp", "vvdecapp")}[family]
    with pytest.raises(DataError, match="failed .*cannot do this"):
        the_codec(family, **dict.fromkeys(keys, broken)).roundtrip(picture(32, 32), 30)


def test_vtm_needs_its_folder_and_configuration(program: Callable[[str, str], str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="programs.vtm=.*EncoderAppStatic"):
        find_codecs(["vtm"], {**NONE, "vtm": str(tmp_path)})
    folder = program("EncoderAppStatic", "").rpartition("/")[0]
    program("DecoderAppStatic", "")
    assert "programs.vtm_config=FILE" in find_codecs(["vtm"], {**NONE, "vtm": folder}).absent["vtm"]
    (tmp_path / "intra.cfg").write_text("")
    codec = the_codec("vtm", vtm=folder, vtm_config=str(tmp_path / "intra.cfg"))
    assert codec.options["config"] == "intra.cfg"


def test_vtm_is_run(program: Callable[[str, str], str], picture: Callable[..., np.ndarray], tmp_path: Path) -> None:
    folder = program("EncoderAppStatic", "shutil.copy(a[a.index('-i') + 1], a[a.index('-b') + 1])").rpartition("/")[0]
    program("DecoderAppStatic", "shutil.copy(a[a.index('-b') + 1], a[a.index('-o') + 1])")
    (tmp_path / "intra.cfg").write_text("")
    image = picture(24, 40)
    coded = the_codec("vtm", vtm=folder, vtm_config=str(tmp_path / "intra.cfg")).roundtrip(image, 30)
    assert coded.size == 24 * 40 * 3
    # Lossless but for CompressAI's 8-bit conversion to YCbCr and back: against the original that is seen.
    assert 40 < psnr(image, coded.image) < 60


def test_a_path_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="programs.bpgenc=.*a program that can be run"):
        find_codecs(["bpg"], {**NONE, "bpgenc": str(tmp_path / "none")})


def test_nearest_rate_with_a_quantiser(picture: Callable[..., np.ndarray]) -> None:
    image = picture(32, 32)
    coarse = Codec("q", "Q", "quantiser", lambda _, q: bytes(100 * (60 - int(q))), (), 51, 0, 1, lambda _: image)
    rates = [8 * 100 * (60 - q) / 1024 for q in range(52)]
    for target in (9.0, 20.0, 44.4):
        assert (
            abs(nearest_rate(coarse, image, target).bpp - target)
            <= min(abs(r - target) for r in rates) + 0.002 * target
        )
