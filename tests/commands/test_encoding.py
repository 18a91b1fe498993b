"""Targets that refined files keep to, on pretended curves: at a quality, refined files are smaller and better."""

from __future__ import annotations

import math
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest

from jointiq.coding import image_codec, refine
from jointiq.commands import encoding
from jointiq.commands.encoding import Encoder, Wish
from jointiq.errors import ConfigError, DataError

PIXELS = 64 * 64


class Pretended:
    """A model of all rates; what it makes of any image is known."""

    def __init__(self, quality=50.0, distortion="mse"):
        self.quality, self.objective = quality, SimpleNamespace(distortion=distortion)

    def at(self, quality):
        return Pretended(quality, self.objective.distortion)

    def candidate(self, bits=1.0, better=0.0):
        data = bytes(round(bits * 2000 * math.exp(self.quality / 30)))
        picture = 25 + self.quality / 8 + better
        encoded = SimpleNamespace(data=data, seconds=1.0)
        return SimpleNamespace(encoded=encoded, picture=picture, distortion=10 ** (-picture / 10), loss=0.0)


@pytest.fixture
def refinements(monkeypatch):
    """What refinement is worth, and the qualities that were refined; pictures are their dB."""
    worth, seen = {"bits": 0.9, "better": 0.1, "interrupted": False}, []

    def refine_image(model, image, steps, advance):
        seen.append(model.quality)
        plain, best = model.candidate(), model.candidate(worth["bits"], worth["better"])
        return SimpleNamespace(plain=plain, best=best, steps=steps, saved=0.12, interrupted=worth["interrupted"])

    pictures = {}

    def decode_image(model, data):
        return SimpleNamespace(image=pictures[data])

    def encode_image(model, image, estimate):
        candidate = model.candidate()
        pictures[candidate.encoded.data] = candidate.picture
        return candidate.encoded

    monkeypatch.setattr(refine, "refine_image", refine_image)
    monkeypatch.setattr(refine, "require_refinable", lambda model: None)
    monkeypatch.setattr(refine, "require_refinable_size", lambda model, height, width: None)
    monkeypatch.setattr(image_codec, "encode_image", encode_image)
    monkeypatch.setattr(image_codec, "decode_image", decode_image)
    monkeypatch.setattr(encoding, "psnr", lambda image, picture: picture)
    return SimpleNamespace(worth=worth, seen=seen)


def code(target, value, steps=10, distortion="mse"):
    wish = Wish(target, value, None, steps)
    encode = Encoder(Pretended(distortion=distortion), wish, lambda what: None, lambda step, saved: None)
    return encode(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("bits", [0.7, 0.9, 1.1])
def test_never_above_the_bytes_and_near_them(refinements, bits):
    refinements.worth["bits"] = bits
    size = len(code("bytes", 9000).encoded.data)
    assert 0.98 * 9000 < size <= 9000 and len(refinements.seen) <= 3


def test_a_rate_is_met_with_refined_files(refinements):
    coded = code("bpp", 8 * 9000 / PIXELS)
    assert len(coded.encoded.data) == pytest.approx(9000, rel=0.01)
    assert len(refinements.seen) == 2
    # Beside the unrefined file of 9000 bytes, whose quality is 30 log(4.5) = 45.1: 10 % more of the networks' bytes.
    gain = 30 * math.log(1 / 0.9) / 8 + 0.1
    assert "; refined in 10 + 10 steps: " in coded.said
    assert float(coded.said.split("bytes, ")[1].split(" dB")[0]) == pytest.approx(gain, abs=0.02)
    assert coded.said.endswith(" dB beside the unrefined file at the target")


def test_without_a_target_the_gain_is_that_at_the_quality(refinements):
    assert code(None, 0).said == (
        ", quality 50; refined in 10 steps: 12.0 % of bits saved at equal quality (-10.0 % bytes, +0.10 dB)"
    )


def test_a_psnr_is_met_by_the_smallest_file(refinements):
    refinements.worth["better"] = 0.3
    coded = code("psnr", 31)
    reached = float(coded.said.split(" dB")[0].lstrip(", "))
    assert 31 <= reached < 31.05 and len(refinements.seen) == 2
    assert len(coded.encoded.data) < 0.9 * len(code("psnr", 31, steps=0).encoded.data)


@pytest.mark.parametrize(("target", "value"), [("bytes", 10), ("bytes", 1e9), ("psnr", 5), ("psnr", 99), ("bpp", 999)])
def test_beyond_the_ends_the_end_is_refined_once(refinements, target, value):
    coded = code(target, value)
    assert len(refinements.seen) == 1 and refinements.seen[0] in (1, 100)
    assert f"quality {refinements.seen[0]:g}" in coded.said and "refined in 10 steps" in coded.said
    assert ("there is" in coded.said) == ((target, value) != ("bytes", 1e9))


def test_beyond_the_highest_quality_the_better_file_is_taken(refinements):
    """Smaller and worse than the unrefined file, it is further from the target."""
    refinements.worth["better"] = -0.1
    coded = code("bpp", 999)
    assert "the highest there is; refined in 10 steps: no refined file does better at the target" in coded.said


@pytest.mark.parametrize(("target", "value"), [("bytes", 9000), ("bpp", 8 * 9000 / PIXELS), ("psnr", 31)])
def test_ctrl_c_keeps_the_refined_file_within_the_limit(refinements, target, value):
    """Smaller than asked for, and worse in dB than the unrefined one that fills the limit: still the better trade."""
    refinements.worth.update(interrupted=True, better=0.1 if target == "psnr" else -0.1)
    coded = code(target, value)
    assert coded.interrupted and len(refinements.seen) == 1
    assert "; refined in 10 steps, stopped on the way to the target: 12.0 % of bits saved at equal" in coded.said


@pytest.mark.parametrize(("target", "value", "worse"), [("bytes", 9000, {"bits": 1.2}), ("psnr", 31, {"better": -0.5})])
def test_ctrl_c_keeps_to_the_target_and_says_what_became_of_the_refinement(refinements, target, value, worse):
    refinements.worth.update(interrupted=True, **worse)
    coded = code(target, value)
    assert coded.interrupted and len(refinements.seen) == 1
    assert coded.encoded.data == code(target, value, steps=0).encoded.data
    assert coded.said.endswith("; refined in 10 steps, stopped: no refined file does better at the target")


@pytest.mark.parametrize("searches", [0, 1])
def test_ctrl_c_in_a_search_keeps_what_was_refined_before(refinements, monkeypatch, searches):
    quality, made = encoding._Search.quality, []

    def interrupted(search, value):
        if len(made) == searches:
            raise KeyboardInterrupt
        made.append(value)
        return quality(search, value)

    monkeypatch.setattr(encoding._Search, "quality", interrupted)
    if searches == 0:
        with pytest.raises(KeyboardInterrupt):
            code("bytes", 9000)
    else:
        coded = code("bytes", 9000)
        assert coded.interrupted and len(refinements.seen) == 1 and len(coded.encoded.data) <= 9000
        assert "; refined in 10 steps, stopped on the way to the target: 12.0 % of bits saved" in coded.said


def test_a_second_ctrl_c_writes_nothing_in_a_later_refinement_too(refinements, monkeypatch):
    refine_image = refine.refine_image

    def ended(*given, **named):
        if refinements.seen:
            raise KeyboardInterrupt
        return refine_image(*given, **named)

    monkeypatch.setattr(refine, "refine_image", ended)
    with pytest.raises(KeyboardInterrupt):
        code("bytes", 9000)


def test_a_picture_too_large_to_refine_is_not_searched(refinements, monkeypatch):
    def too_large(model, height, width):
        raise DataError("too many to refine")

    monkeypatch.setattr(refine, "require_refinable_size", too_large)
    monkeypatch.setattr(encoding._Search, "quality", None)
    with pytest.raises(DataError, match="too many to refine"):
        code("bytes", 9000)


def test_no_search_after_the_last_refinement(refinements, monkeypatch):
    """What is gained changes every time, so that no aim is met."""
    quality, aims = encoding._Search.quality, []

    def counted(search, value):
        aims.append(value)
        refinements.worth["bits"] = 0.6 + 0.1 * len(aims)
        return quality(search, value)

    monkeypatch.setattr(encoding._Search, "quality", counted)
    code("bytes", 9000)
    assert len(refinements.seen) == len(aims) == 3


def test_better_is_what_the_model_was_trained_for(refinements, monkeypatch):
    """A file with less distortion is taken, although its PSNR is lower."""
    monkeypatch.setattr(encoding, "psnr", lambda image, picture: 100 - picture)
    refinements.worth.update(better=0.3, bits=1.0)
    said = code("bytes", 9000, distortion="ms_ssim").said
    assert said.endswith("(+0.0 % bytes, +0.30 dB MS-SSIM)")


def test_the_highest_quality_may_be_on_target(refinements):
    highest = 8 * len(Pretended(100).candidate(0.9).encoded.data) / PIXELS
    assert ", quality 100; refined" in code("bpp", highest).said
    assert "there is" in code("bpp", 1.1 * highest / 0.9).said


def test_wishes():
    given = {"bpp": None, "psnr": None, "bytes": None, "quality": 3, "refine": None, "effort": "high"}
    assert Wish.of(Namespace(**given)) == Wish(None, 0.0, 3, encoding.EFFORTS["high"])
    assert Wish.of(Namespace(**{**given, "refine": 7, "bpp": 0.5})) == Wish("bpp", 0.5, 3, 7)
    with pytest.raises(ConfigError, match="--bytes=1.5 is not allowed"):
        Wish.of(Namespace(**{**given, "bytes": 1.5}))
    with pytest.raises(ConfigError, match="--refine"):
        Wish.of(Namespace(**{**given, "refine": -1}))
