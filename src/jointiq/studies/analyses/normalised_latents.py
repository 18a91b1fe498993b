"""Lee 2019, Figure 2: y_hat beside (y_hat - mean) / standard deviation, and the correlation of neighbours in both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jointiq.coding.image_codec import to_tensor
from jointiq.coding.load import load_model
from jointiq.console import Table, number
from jointiq.data.images import read_image
from jointiq.entropy_models.context import ContextEntropyModel
from jointiq.entropy_models.gaussian_mixture import SIGMA_MIN, split_parameters
from jointiq.errors import DataError
from jointiq.evaluation.plots.rd_plot import new_figure, save_all
from jointiq.models.base import LearnedCodec
from jointiq.models.compressai_codec import CompressAICodec
from jointiq.studies.context import Context, Findings, Ours, steps_text

OPTIONS = {"lmbda"}
_TINY = 1e-6


@dataclass(frozen=True)
class Likeness:
    """Correlation of the latents of neighbouring positions.

    Attributes:
        correlation: of horizontal and vertical neighbours, mean over all channels that are not constant.
        variance: mean over the same channels.
        best: correlation in the drawn channel, which has the highest covariance of neighbours in y_hat.
    """

    correlation: float
    variance: float
    best: float


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Normalise the latents of all images of the first set by the model's mean and standard deviation.

    Options: ``lmbda`` of the models. A value names its model in ``run``; our result is the correlation of neighbours in
    y_hat and after the normalisation, in the drawn channel and in all.
    """
    images = context.sets[0]
    lmbda = options.get("lmbda")
    table = Table(
        f"Neighbours in y_hat and in normalised y_hat, means over {images}",
        ("model", "latents", "correlation of neighbours", "variance", "correlation, drawn channel"),
        left=2,
    )
    findings = Findings(tables=[table], notes=[_NOTE])
    for value in context.scale.values:
        name = str(value.details.get("run"))
        if not context.of(name):
            continue
        one = context.any_of(name, lmbda)
        model = load_model(one.checkpoint, context.device)
        pairs = [normalise(model, to_tensor(read_image(path), model.device)) for path in images.paths]
        found = likeness(pairs)
        if found is None:
            reason = "none: the model codes nothing, every channel of y_hat is constant"
            findings.ours.append(Ours(value.name, reason, {}, str(images), steps_text([one])))
            continue
        before, after = found
        for text, numbers_of in (("y_hat", before), ("normalised", after)):
            cells = [number(x, 3) for x in vars(numbers_of).values()]
            table.rows.append((context.label(name), text, *cells))
        text = (
            f"correlation of neighbours in the drawn channel {before.best:.3f} -> {after.best:.3f}, "
            f"in all {before.correlation:.3f} -> {after.correlation:.3f}"
        )
        numbers = {"before": vars(before), "after": vars(after), "lmbda": one.lmbda}
        findings.ours.append(Ours(value.name, text, numbers, str(images), steps_text([one])))
        caption = f"{context.label(name)}, {images.paths[0].name}: y_hat and normalised y_hat of one channel."
        findings.figures.append((_figure(context, name, *pairs[0]), caption))
    return findings


_NOTE = (
    "Normalised: minus the predicted mean (zero where a model predicts none), over the predicted standard deviation. "
    "What the entropy model has understood is gone from it: neighbours that are still alike are bits that a better "
    "context could save. The channel that is drawn has the highest covariance of neighbours, as in the paper."
)


@torch.inference_mode()
def normalise(model: LearnedCodec, x: Tensor) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return y_hat of an image (1, 3, H, W) and (y_hat - mean) / sigma, both (M, h, w).

    Raises:
        DataError: the model predicts no single mean and standard deviation.
    """
    latents = model.latents(x)
    y_hat, z_hat = latents["y"], latents.get("z")
    entropy_model = model.entropy_model
    if isinstance(entropy_model, ContextEntropyModel) and entropy_model.G == 1 and z_hat is not None:
        _, means, log_sigmas = split_parameters(entropy_model.mixture_parameters(y_hat, z_hat), 1)
        mean, sigma = means[:, 0], log_sigmas[:, 0].exp()
    elif isinstance(model, CompressAICodec) and model.config["arch"] == "bmshj2018-hyperprior":
        mean, sigma = torch.zeros_like(y_hat), model.net.h_s(z_hat).clamp(min=SIGMA_MIN)
    else:
        raise DataError(f"{model.config['name']} predicts no single mean and standard deviation; allowed: G = 1")
    normalised = (y_hat - mean) / sigma.clamp(min=_TINY)
    return y_hat[0].cpu().numpy(), normalised[0].cpu().numpy()


def likeness(pairs: list[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> tuple[Likeness, Likeness] | None:
    """Return the numbers of y_hat and of normalised y_hat over all images; None where all of y_hat is constant."""
    if not any((y_hat.var((1, 2)) > _TINY).any() for y_hat, _ in pairs):
        return None
    found: list[list[tuple[NDArray[np.floating], NDArray[np.floating], float]]] = [[], []]
    for pair in pairs:
        channel = int(np.argmax(neighbour_covariance(pair[0])))
        active = pair[0].var((1, 2)) > _TINY
        for numbers, latents in zip(found, pair, strict=True):
            variance = latents.var((1, 2))
            correlation = neighbour_covariance(latents) / np.maximum(variance, _TINY)
            numbers.append((correlation[active], variance[active], float(correlation[channel])))
    results = []
    for numbers in found:
        correlations, variances, best = zip(*numbers, strict=True)
        results.append(
            Likeness(
                float(np.concatenate(correlations).mean()),
                float(np.concatenate(variances).mean()),
                float(np.mean(best)),
            )
        )
    return results[0], results[1]


def neighbour_covariance(latents: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean covariance of horizontal and vertical neighbours in each channel of (M, h, w), (M,)."""
    centred = latents - latents.mean((1, 2), keepdims=True)
    across = (centred[:, :, 1:] * centred[:, :, :-1]).mean((1, 2))
    down = (centred[:, 1:] * centred[:, :-1]).mean((1, 2))
    covariance: NDArray[np.floating] = (across + down) / 2
    return covariance


def _figure(context: Context, name: str, y_hat: NDArray[np.floating], normalised: NDArray[np.floating]) -> Path:
    channel = int(np.argmax(neighbour_covariance(y_hat)))
    figure = new_figure(6.4, 2.9)
    for i, (title, latents) in enumerate((("y_hat", y_hat), ("normalised", normalised))):
        axes = figure.add_subplot(1, 2, i + 1)
        limit = float(np.abs(latents[channel]).max()) or 1.0
        shown = axes.imshow(latents[channel], cmap="gray", vmin=-limit, vmax=limit)
        axes.set_title(f"{title}, channel {channel}", fontsize=10, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.8)
    return save_all(figure, context.output / f"normalised_{name}")[0]
