"""Which codecs there are: those of Pillow run, absent ones are told."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from jointiq.errors import ConfigError
from jointiq.evaluation.codecs import pillow as anchor_codecs
from jointiq.evaluation.codecs.anchors import code
from jointiq.evaluation.codecs.pillow import FAMILIES, find_codecs

BUILT_IN = ["jpeg", "jpeg2000", "webp", "avif"]


def test_families_give_their_codecs() -> None:
    found = find_codecs(BUILT_IN, {})
    assert [codec.name for codec in found.codecs] == [name for family in BUILT_IN for name in FAMILIES[family]]
    assert not found.absent


@pytest.mark.parametrize("codec", find_codecs(BUILT_IN, {}).codecs, ids=lambda codec: codec.name)
def test_codecs_make_larger_and_better_files_at_larger_settings(
    codec: anchor_codecs.Codec, picture: Callable[..., np.ndarray]
) -> None:
    image = picture(64, 80)
    low, high = (code(codec, image, setting) for setting in (codec.settings[1], codec.settings[-1]))
    assert low.bytes < high.bytes and low.psnr < high.psnr
    again = pickle.loads(pickle.dumps(codec))  # as it travels to a worker
    assert again.encode(image, codec.settings[1]) == codec.encode(image, codec.settings[1])
    about = codec.about()
    assert all(about[key] for key in ("version", "options", "colour_space", "command"))


def test_avif_keeps_its_chroma_format(picture: Callable[..., np.ndarray]) -> None:
    codecs = find_codecs(["avif"], {}).codecs
    colours = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    coarse, fine = (code(codec, colours, 100) for codec in codecs)
    assert fine.psnr > coarse.psnr + 5
    with Image.open(io.BytesIO(codecs[0].encode(colours, 50))) as file:
        assert file.format == "AVIF"


def test_what_a_codec_tells_does_not_change_by_coding(
    picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"enc_params": {"preset": "slow"}}

    def save(self: Image.Image, stream: io.BytesIO, kind: str, **given: dict) -> None:
        given["enc_params"]["chroma"] = 444  # as pillow-heif does

    monkeypatch.setattr(Image.Image, "save", save)
    anchor_codecs._save(picture(8, 8), 50, kind="HEIF", options=options)
    assert options == {"enc_params": {"preset": "slow"}}


def test_absent_plugins_and_programs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor_codecs, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    found = find_codecs(["heif", "jxl", "bpg", "vvenc", "vtm"], {})
    assert found.codecs == ()
    assert list(found.absent) == ["heif", "jxl", "bpg", "vvenc", "vtm"]
    assert "pillow-heif is not installed" in found.absent["heif"]
    assert "programs.bpgenc=PATH" in found.absent["bpg"]


def test_avif_without_any_encoder_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor_codecs.features, "modules", {})
    monkeypatch.setattr(anchor_codecs, "find_spec", lambda name: None)
    assert "pillow-avif-plugin is not installed" in find_codecs(["avif"], {}).absent["avif"]


def test_unknown_families_are_refused() -> None:
    with pytest.raises(ConfigError, match="codecs='gif'.*jpeg, jpeg2000"):
        find_codecs(["gif"], {})
