"""Mean difference of two systems with its 95 % confidence interval over seeds and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

CONFIDENCE = 0.95

#: Measurements of one lambda, (seeds, images).
Samples = NDArray[np.floating]


@dataclass(frozen=True)
class Effect:
    """A mean difference with its confidence interval.

    Attributes:
        mean, low, high: the difference and its 95 % interval, in the unit of the measurements. The interval is infinite
            with a single image.
        seed_error, image_error: the two parts of its standard error; None for a single seed, or image.
        degrees: of freedom of the interval (Welch and Satterthwaite).
    """

    mean: float
    low: float
    high: float
    seed_error: float | None
    image_error: float | None
    degrees: float

    @property
    def sign(self) -> int:
        """+1 or -1 where the interval excludes zero and seeds were repeated, else 0."""
        if self.seed_error is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def paired_effect(test: Sequence[Samples], anchor: Sequence[Samples], fixed_anchor: bool = False) -> Effect:
    """Return the mean of test - anchor over lambdas, seeds and images.

    Lambdas are fixed and count alike; seeds and images are samples. The variance of seeds is estimated within each
    lambda, from trainings that differ in nothing else, and pooled over lambdas. The variance of images is estimated
    from the images' differences averaged over lambdas and seeds, so that an image's own difficulty cancels. The two
    variances add up. The interval is Student's t with the degrees of freedom of Welch and Satterthwaite.

    Args:
        test, anchor: measurements of each lambda, in the same order and of the same images.
        fixed_anchor: the anchor was not trained for this comparison (the common trunk), so it has no seed variance.
    """
    lambdas = len(test)
    differences = np.mean([t.mean(0) - a.mean(0) for t, a in zip(test, anchor, strict=True)], axis=0)
    mean, images = float(differences.mean()), differences.size
    parts = [(float(differences.var(ddof=1)) / images, images - 1)] if images > 1 else []
    image_error = float(np.sqrt(parts[0][0])) if parts else None
    seed_parts = [_seed_variance(test, lambdas)]
    if not fixed_anchor:
        seed_parts.append(_seed_variance(anchor, lambdas))
    known = [part for part in seed_parts if part is not None]
    seed_error = float(np.sqrt(sum(variance for variance, _ in known))) if len(known) == len(seed_parts) else None
    parts += known
    total = sum(variance for variance, _ in parts)
    if image_error is None or total == 0:
        # The spread of a single image is unknown; equal measurements have none.
        half, degrees = (0.0 if image_error is not None else float("inf")), float("inf")
    else:
        degrees = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
        half = float(student.ppf(0.5 + CONFIDENCE / 2, degrees) * np.sqrt(total))
    return Effect(mean, mean - half, mean + half, seed_error, image_error, degrees)


def _seed_variance(samples: Sequence[Samples], lambdas: int) -> tuple[float, int] | None:
    """Return the seeds' variance in the mean over lambdas, and its degrees of freedom; None for single seeds."""
    if any(len(one) < 2 for one in samples):
        return None
    means = [one.mean(1) for one in samples]
    freedom = sum(len(one) - 1 for one in means)
    pooled = sum(float(((one - one.mean()) ** 2).sum()) for one in means) / freedom
    return pooled * sum(1 / len(one) for one in means) / lambdas**2, freedom
