"""Encode one image as the command line asks: at a quality, to a target, refined."""

from __future__ import annotations

import functools
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jointiq.bitstream.container import HIGHEST, LOWEST
from jointiq.coding import EFFORTS
from jointiq.errors import ConfigError, check_whole
from jointiq.evaluation.metrics import decibels, psnr

# Imported late below: mistakes that show before a model is needed do not wait for PyTorch.
if TYPE_CHECKING:
    from jointiq.coding.image_codec import Encoded, Image
    from jointiq.coding.refine import Advance, Candidate, Refined
    from jointiq.models.base import LearnedCodec

#: What a model of all rates can be asked for: metavar and help.
TARGETS = {
    "bpp": ("X", "the file nearest to X bits a pixel"),
    "psnr": ("X", "the smallest file with X dB"),
    "bytes": ("N", "the best file of at most N bytes"),
}
# Refinements that a target may take: each one tells better where the next has to begin.
_ROUNDS = 3
# What counts as the target: this share of the bits, or dB.
_NEAR_BITS, _NEAR_DB = 0.01, 0.03

#: Told before a refinement what it is.
Begin = Callable[[str], object]


@dataclass(frozen=True)
class Coded:
    """A coded image.

    Attributes:
        said: the end of the line about it: quality, refinement.
        seconds: wall-clock time of it all: of the search for a target and of every refinement as well.
        interrupted: by Ctrl-C, which ended its refinement.
    """

    encoded: Encoded
    said: str
    seconds: float
    interrupted: bool = False


@dataclass(frozen=True)
class Wish:
    """What a command line asks for.

    Attributes:
        target, value: one of :data:`TARGETS`, or None.
        quality: of a model of all rates, or None.
        steps: of refinement.
    """

    target: str | None
    value: float
    quality: float | None
    steps: int

    @classmethod
    def of(cls, arguments: Namespace) -> Wish:
        """Read it from the arguments.

        Raises:
            ConfigError: a target that is not above zero, or no number of steps.
        """
        target = next((name for name in TARGETS if getattr(arguments, name) is not None), None)
        value = 0.0 if target is None else getattr(arguments, target)
        if target is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{target}", value, "a number above 0")
        if target == "bytes":
            check_whole("--bytes", value, 1)
        steps = arguments.refine
        if steps is None:
            steps = EFFORTS[arguments.effort]
        check_whole("--refine", steps, 0)
        return cls(target, value, arguments.quality, steps)


@dataclass(frozen=True)
class Encoder:
    """Encodes images with a model as a wish says.

    Raises:
        ConfigError: the model has one rate, and something else is asked for.
        UserError: the model cannot be refined.
    """

    model: LearnedCodec
    wish: Wish
    begin: Begin
    advance: Advance

    def __post_init__(self) -> None:
        wish = self.wish
        if self.model.quality is None and (wish.target is not None or wish.quality is not None):
            key, value = ("quality", wish.quality) if wish.target is None else (wish.target, wish.value)
            raise ConfigError(
                f"--{key}",
                value,
                "left out, because this model has one rate; or a --checkpoint of all rates (model.rates=continuous)",
            )
        if wish.steps:
            from jointiq.coding.refine import require_refinable

            require_refinable(self.model)

    def __call__(self, image: Image) -> Coded:
        from jointiq.coding.image_codec import encode_image

        wish, model = self.wish, self.model
        if model.quality is not None and wish.target is not None:
            return self._to_target(image, wish.target)
        at = model if model.quality is None or wish.quality is None else model.at(wish.quality)
        said = "" if at.quality is None else f", quality {at.quality:g}"
        if not wish.steps:
            encoded = encode_image(at, image, estimate=False)
            return Coded(encoded, said, encoded.seconds)
        refined = self._refine(at, image)
        best = refined.best.encoded
        steps = _steps([refined], ", stopped" if refined.interrupted else "")
        return Coded(best, said + self._gain(refined, steps), best.seconds, refined.interrupted)

    def _refine(self, model: LearnedCodec, image: Image) -> Refined:
        from jointiq.coding.refine import refine_image

        self.begin("refine" if model.quality is None else f"refine at {model.quality:g}")
        return refine_image(model, image, self.wish.steps, advance=self.advance)

    def _to_target(self, image: Image, target: str) -> Coded:
        """Encode at the quality that comes to the target, found by real files.

        A refined file is smaller and better than that of the networks at the same quality. So the search is made with
        the networks alone, the file it finds is refined, and by what that changes the search aims higher or lower.
        """
        began = time.perf_counter()
        if self.wish.steps:
            from jointiq.coding.refine import require_refinable_size

            require_refinable_size(self.model, *image.shape[:2])
        search = _Search(self.model, image, target)
        value = self.wish.value
        quality = search.quality(value)
        if not self.wish.steps:
            encoded, reached = search.encoded_at(quality), search.measure_at(quality)
            return Coded(encoded, _reached(target, quality, reached, value), time.perf_counter() - began)
        tried: dict[float, Refined] = {}
        interrupted = False
        while quality not in tried:
            refined = tried[quality] = self._refine(self.model.at(quality), image)
            plain, best = (search.measure(each) for each in (refined.plain, refined.best))
            interrupted = refined.interrupted
            if interrupted or _is_near(target, best, value) or len(tried) == _ROUNDS:
                break
            try:
                quality = search.quality(value + plain - best if target == "psnr" else value * plain / best)
            except KeyboardInterrupt:
                # Between two refinements: what the first has found is not lost.
                interrupted = True
                break
        quality, picked = _pick(search, value, tried, interrupted)
        reached = search.measure(picked)
        said = _reached(target, quality, reached, value)
        stopped = ", stopped" if interrupted else ""
        if interrupted and not _is_near(target, reached, value):
            stopped += " on the way to the target"
        steps = _steps(tried.values(), stopped)
        gain = self._gain_at_target(tried, picked, steps)
        return Coded(picked.encoded, said + gain, time.perf_counter() - began, interrupted)

    def _gain(self, refined: Refined, steps: str) -> str:
        """Return what a refinement was worth, as text."""
        if refined.best.picture is refined.plain.picture:
            return f"{steps}: nothing gained"
        changed = self._change(refined.plain, refined.best)
        return f"{steps}: {100 * refined.saved:.1f} % of bits saved at equal quality ({changed})"

    def _gain_at_target(self, tried: Mapping[float, Refined], picked: Candidate, steps: str) -> str:
        """Return what refinements were worth, as text, beside the unrefined file that came to the target."""
        first = next(iter(tried.values()))
        if picked is first.best:
            return self._gain(first, steps)
        if any(picked is refined.plain for refined in tried.values()):
            return f"{steps}: no refined file does better at the target"
        return f"{steps}: {self._change(first.plain, picked)} beside the unrefined file at the target"

    def _change(self, plain: Candidate, best: Candidate) -> str:
        share = len(best.encoded.data) / len(plain.encoded.data) - 1
        # The scale of the distortion drops out of the difference.
        better = decibels(best.distortion) - decibels(plain.distortion)
        objective = self.model.objective
        unit = "dB" if objective is None or objective.distortion == "mse" else "dB MS-SSIM"
        return f"{100 * share:+.1f} % bytes, {better:+.2f} {unit}"


class _Search:
    """Files of one image at the qualities of a model of all rates, and what a target measures of them.

    Attributes:
        pixels: of the image.
    """

    def __init__(self, model: LearnedCodec, image: Image, target: str) -> None:
        self.model, self.image, self.target = model, image, target
        self.pixels = image.shape[0] * image.shape[1]
        self.encoded_at = functools.cache(self._encoded_at)
        self.measure_at = functools.cache(self._measure_at)

    def quality(self, value: float) -> float:
        """Return the quality at which the networks alone come to a value of the target."""
        from jointiq.coding.rate_search import largest_quality, nearest_quality, smallest_quality

        find = {"psnr": smallest_quality, "bytes": largest_quality, "bpp": nearest_quality}[self.target]
        return find(self.measure_at, value)

    def measure(self, candidate: Candidate) -> float:
        """Return what the target measures."""
        return self._measured(candidate.encoded, candidate.picture)

    def _measured(self, encoded: Encoded, picture: Image | None) -> float:
        if self.target == "psnr":
            assert picture is not None
            return psnr(self.image, picture)
        size = len(encoded.data)
        return size if self.target == "bytes" else 8 * size / self.pixels

    def _encoded_at(self, quality: float) -> Encoded:
        from jointiq.coding.image_codec import encode_image

        return encode_image(self.model.at(quality), self.image, estimate=False)

    def _measure_at(self, quality: float) -> float:
        from jointiq.coding.image_codec import decode_image

        encoded = self.encoded_at(quality)
        return self._measured(encoded, decode_image(self.model, encoded.data).image if self.target == "psnr" else None)


def _is_near(target: str, reached: float, value: float) -> bool:
    if target == "psnr":
        return value <= reached <= value + _NEAR_DB
    return (1 - _NEAR_BITS) * value <= reached <= (value if target == "bytes" else (1 + _NEAR_BITS) * value)


def _pick(search: _Search, value: float, tried: Mapping[float, Refined], interrupted: bool) -> tuple[float, Candidate]:
    """Return the best file that keeps to the target; where none does, the one that comes nearest to it.

    After Ctrl-C a refined file that keeps to the target is taken, however much better than asked for: the unrefined one
    that comes close to it is worth less for its bits.
    """
    target = search.target
    refined = [(at, one.best) for at, one in tried.items()]
    options = [*refined, *((at, one.plain) for at, one in tried.items())]
    limit = value if target == "bytes" else (1 + _NEAR_BITS) * value

    def reached(option: tuple[float, Candidate]) -> float:
        return search.measure(option[1])

    def keeps(option: tuple[float, Candidate]) -> bool:
        return reached(option) >= value if target == "psnr" else reached(option) <= limit

    def size(option: tuple[float, Candidate]) -> int:
        return len(option[1].encoded.data)

    def distortion(option: tuple[float, Candidate]) -> float:
        return option[1].distortion

    good = [option for option in refined if keeps(option)] if interrupted else []
    good = good or [option for option in options if keeps(option)]
    if not good:
        return min(options, key=lambda option: abs(reached(option) - value))
    return min(good, key=size) if target == "psnr" else min(good, key=distortion)


def _reached(target: str, quality: float, reached: float, value: float) -> str:
    """Return the quality as text, and whether it is one of the ends, where the target lies beyond."""
    far_above = quality == LOWEST and reached > value + _NEAR_DB
    missed = {
        "psnr": reached < value or far_above,
        "bytes": reached > value,
        "bpp": quality in (LOWEST, HIGHEST) and not _is_near(target, reached, value),
    }[target]
    end = "lowest" if quality == LOWEST else "highest"
    found = f", {reached:.2f} dB" if target == "psnr" else ""
    return f"{found}, quality {quality:g}" + (f", the {end} there is" if missed else "")


def _steps(tried: Iterable[Refined], stopped: str) -> str:
    return f"; refined in {' + '.join(str(refined.steps) for refined in tried)} steps{stopped}"
