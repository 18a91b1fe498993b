"""A better encoder for the same decoder: refine the latents of one picture by gradient descent.

A decoder reads whatever y and z it is sent. g_a and h_a give good ones at once; a few hundred steps of Adam on the
latents themselves, with all weights frozen, give better ones (Campos et al. 2019; Yang, Bamler, Mandt 2020, "Improving
Inference for Neural Image Compression"). Neither the decoder nor the format changes.

1. Begin with the latents that the networks give, not rounded.
2. In every step, relax the rounding (:func:`relax`), evaluate the loss of the training on the relaxed latents
   (:class:`Cost`: Eq. 7 with the model's lambda and distortion, through the enhancer), and move the latents by Adam.
   The temperature of the relaxation falls, so that the relaxed latents come close to whole numbers.
3. Every few steps round the latents as they would be coded and evaluate these. The best so far is kept.
4. Code the best and the unrefined latents to real files, and keep the file whose bytes and 8-bit picture have the lower
   loss: a refined file is never worse than that of the networks alone.

This needs likelihoods of relaxed latents at all positions in one pass. The models that are coded on integers have them,
because they round a latent itself; CompressAI's round its distance to a mean that depends on what was decoded before.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from jointiq.coding.image_codec import Encoded, Image, encode_image, require_size, to_image, to_tensor
from jointiq.entropy_models.base import Latents
from jointiq.errors import ConfigError, DataError, UserError, check_whole
from jointiq.layers.padding import Size
from jointiq.layers.quantize import round_ste
from jointiq.models.base import LearnedCodec, require_finite
from jointiq.models.integer_codec import IntegerCodec
from jointiq.models.objective import Objective, image_distortion
from jointiq.runtime import first_interrupt_noted, has_fast_bfloat16, memory_failures_told, tf32

SGA, SGA_PLUS, STRAIGHT_THROUGH = "sga", "sga+", "straight-through"
#: How rounding can be relaxed; see :func:`relax`.
VARIANTS = (SGA, SGA_PLUS, STRAIGHT_THROUGH)

#: Called after a step with its number, and with the share of the bits that is saved by then (at equal quality).
Advance = Callable[[int, float], object]


@dataclass(frozen=True)
class Recipe:
    """How the latents are moved.

    Attributes:
        variant: one of :data:`VARIANTS`.
        learning_rate: of Adam, in units of the latents' rounding steps.
        hot, cold: temperature of the relaxation at the first and at the last step; it falls geometrically.
        check: steps from one rounded candidate to the next.
        patience: share of all steps, and at least 50, after which a refinement without a better candidate ends early.
            At low rates the first better one comes late, when the temperature has fallen.
    """

    variant: str = SGA
    learning_rate: float = 0.02
    hot: float = 0.5
    cold: float = 0.2
    check: int = 10
    patience: float = 0.75


RECIPE = Recipe()
_SEED = 0
# Steps that may always pass without a better candidate.
_PATIENT = 50
# The slope of sigmoid scaled logits (SGA+).
_SSL_SLOPE = 4 / 3
# Keeps the odds finite where a latent is a whole number.
_SHARE_MIN = 1e-5

#: The side of the deepest latents' positions in pixels: tiles of a picture begin at multiples of it.
_ALIGNED = 64
# Picture around a tile that is evaluated with it. g_s sees 30 pixels, an enhancer more, but less and less.
_HALO = 64
# What a tile's evaluation, and that of the likelihoods, may keep for the gradient.
_TILE_BYTES = 2.0e9
_LIKELIHOOD_BYTES = 3.0e9


@dataclass(frozen=True)
class Candidate:
    """A coded picture.

    Attributes:
        encoded: its file.
        picture: what a decoder makes of it, 8-bit (H, W, 3).
        distortion: of the picture, by what the model was trained for (``image_distortion``).
        loss: Eq. 7 of the two.
    """

    encoded: Encoded
    picture: Image
    distortion: float
    loss: float


@dataclass(frozen=True)
class Refined:
    """What came of a refinement.

    Attributes:
        plain: of the latents that the networks give.
        best: the better one of that and of the refined one; the seconds of its file are those of everything.
        steps: that were taken.
        saved: share of the bits by which ``best`` is better, at equal quality along the slope of the loss.
        interrupted: by Ctrl-C, which ended the steps, or came after the last one.
    """

    plain: Candidate
    best: Candidate
    steps: int
    saved: float
    interrupted: bool


def require_refinable(model: LearnedCodec) -> Objective:
    """Return the objective that a model's latents can be refined by.

    Raises:
        UserError: it is not coded on integers, or nothing says what it was trained for.
    """
    if not isinstance(model, IntegerCodec):
        raise UserError(
            f"{model.config.get('arch', model.config['name'])} of CompressAI cannot be refined, because its coder "
            "works on floats; allowed: the systems that are coded on integers"
        )
    if model.objective is None:
        raise UserError(
            "the model's file does not say what it was trained for (lambda, distortion), which refining needs; "
            "allowed: its training checkpoint, or an export of that in .safetensors"
        )
    return model.objective


@torch.inference_mode(False)
def require_refinable_size(model: LearnedCodec, height: int, width: int) -> None:
    """Refuse a picture that is too large to refine.

    Raises:
        DataError: the likelihoods of all its positions do not fit into memory.
    """
    like = torch.zeros(1, device=model.device)
    with _frozen(model):
        a_pixel = _bytes_a_pixel(model, like, lambda latents, _: model.log_likelihoods(latents))
    most = _LIKELIHOOD_BYTES / a_pixel
    if height * width > most:
        raise DataError(
            f"the image has {width}x{height} pixels, too many to refine; allowed with this model: {most / 1e6:.1f} "
            "megapixels, or no refinement"
        )


@memory_failures_told()
@tf32(allowed=False)
@torch.inference_mode(False)
def refine_image(
    model: LearnedCodec,
    image: Image,
    steps: int,
    recipe: Recipe = RECIPE,
    advance: Advance = lambda step, saved: None,
    estimate: bool = False,
) -> Refined:
    """Encode an 8-bit RGB image (H, W, 3) with latents refined in up to ``steps`` steps.

    The same image, model, steps, device and threads give the same file. Ctrl-C ends the steps, and the best candidate
    so far is taken; a second Ctrl-C ends everything.

    Args:
        estimate: of :func:`jointiq.coding.image_codec.encode_image`.

    Raises:
        ConfigError: no whole number of steps, or no such variant.
        DataError: the image is too large (also for memory), or the model gives no finite latents for it.
        UserError: see :func:`require_refinable`.
    """
    check_whole("refine", steps, 0)
    objective = require_refinable(model)
    require_size(*image.shape[:2])
    require_refinable_size(model, *image.shape[:2])
    x = to_tensor(image, model.device)
    began = time.perf_counter()
    with first_interrupt_noted() as interrupted:
        with _frozen(model), torch.enable_grad():
            cost = Cost(model, objective, x)
            with torch.no_grad():
                start = {name: value.clone() for name, value in require_finite(model.analyse(x)).items()}
            # What the flags are not told they set to defaults of their own.
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                found, taken = _descend(cost, start, steps, recipe, advance, interrupted)
        plain = _candidate(cost, image, rounded(start), estimate)
        candidates = [plain] if found is None else [plain, _candidate(cost, image, found, estimate)]
    best = min(candidates, key=lambda one: one.loss)
    saved = (plain.loss - best.loss) / (_nats(plain.encoded) * cost.nats_weight)
    seconds = time.perf_counter() - began
    best = replace(best, encoded=replace(best.encoded, seconds=seconds))
    return Refined(plain, best, taken, saved, interrupted())


def _descend(
    cost: Cost, start: Latents, steps: int, recipe: Recipe, advance: Advance, interrupted: Callable[[], bool]
) -> tuple[Latents | None, int]:
    """Return the best rounded latents, None where none are better than the start, and the steps taken."""
    generator = torch.Generator(cost.x.device).manual_seed(_SEED)
    latents = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(list(latents.values()), lr=recipe.learning_rate)
    first, bits = cost.evaluate(rounded(start))
    best, found, found_at = first, None, 0
    taken = 0
    while taken < steps and not interrupted():
        temperature = recipe.hot * (recipe.cold / recipe.hot) ** (taken / max(1, steps - 1))
        relaxed = {name: relax(value, recipe.variant, temperature, generator) for name, value in latents.items()}
        optimizer.zero_grad()
        torch.autograd.backward(list(relaxed.values()), cost.gradients(relaxed))
        optimizer.step()
        taken += 1
        if taken % recipe.check == 0 or taken == steps:
            candidate = rounded(latents)
            loss, _ = cost.evaluate(candidate)
            if loss < best:
                best, found, found_at = loss, candidate, taken
        advance(taken, (first - best) / bits)
        if taken - found_at > max(_PATIENT, recipe.patience * steps):
            break
    return found, taken


def rounded(latents: Latents) -> Latents:
    """Return the latents as they are coded."""
    return {name: torch.round(value.detach()) for name, value in latents.items()}


def relax(latent: Tensor, variant: str, temperature: float, generator: torch.Generator) -> Tensor:
    """Return a latent between the whole numbers below and above it, close to one of them, with a gradient.

    - ``sga``: stochastic Gumbel annealing (Yang, Bamler, Mandt 2020, section 3.2). The two numbers are drawn with odds
      exp((atanh(d) - atanh(1 - d)) / temperature) for the upper one, d the distance to the lower, in the relaxed form
      of Gumbel-softmax. Of two classes the difference of two Gumbel variables is one logistic variable.
    - ``sga+``: the same with odds exp(a logit(d) / temperature), the sigmoid scaled logit that Perugachi-Diaz,
      Gansekoele and Bhulai found best (2024, "Robustly overfitting latents for flexible neural image compression").
    - ``straight-through``: rounded, with the identity as gradient.
    """
    if variant == STRAIGHT_THROUGH:
        return round_ste(latent)
    if variant not in VARIANTS:
        raise ConfigError("variant", variant, VARIANTS)
    lower = latent.detach().floor()
    share = (latent - lower).clamp(_SHARE_MIN, 1 - _SHARE_MIN)
    log_odds = torch.atanh(share) - torch.atanh(1 - share) if variant == SGA else _SSL_SLOPE * torch.logit(share)
    uniform = torch.rand(latent.shape, generator=generator, device=latent.device).clamp(_SHARE_MIN, 1 - _SHARE_MIN)
    return lower + torch.sigmoid((log_odds / temperature + torch.logit(uniform)) / temperature)


class Cost:
    """Eq. 7 of one picture as a function of its latents.

    The gradient of the distortion is gathered tile by tile, so that a picture of any size fits into memory.

    Args:
        model: with frozen weights.
        objective: what it was trained for.
        x: the picture, (1, 3, H, W) in [0, 1].
    """

    def __init__(self, model: LearnedCodec, objective: Objective, x: Tensor) -> None:
        self.model, self.objective, self.x = model, objective, x
        self.size: Size = (x.shape[-2], x.shape[-1])
        height, width = self.size
        self.nats_weight = objective.nats_weight(model.quality, height * width)
        self.distortion_weight = objective.distortion_weight(model.quality)
        # Gradients alone: what is compared is evaluated as a decoder does it.
        self.autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=has_fast_bfloat16(x.device))
        # The whole picture, or squares, as large as memory allows.
        area = _TILE_BYTES / _bytes_a_pixel(model, x, model.reconstruct_from)
        side = max(_ALIGNED, (int(area**0.5) - 2 * _HALO) // _ALIGNED * _ALIGNED)
        self.tile: Size = self.size if height * width <= area else (min(side, height), min(side, width))

    def evaluate(self, latents: Latents) -> tuple[float, float]:
        """Return the loss of rounded latents with their 8-bit picture, and the part of it that the bits are."""
        with torch.no_grad():
            nats = -sum(float(value.sum()) for value in self.model.log_likelihoods(latents).values())
            x_hat, _ = self.model.reconstruct_from(latents, self.size)
        return self.loss(nats, self.distortion(to_image(x_hat))), nats * self.nats_weight

    def loss(self, nats: float, distortion: float) -> float:
        """Return the loss of a rate, in nats, and a distortion."""
        return nats * self.nats_weight + self.distortion_weight * distortion

    def distortion(self, picture: Image) -> float:
        """Return D of an 8-bit picture."""
        return float(image_distortion(to_tensor(picture, self.x.device), self.x, self.objective.distortion))

    def gradients(self, latents: Latents) -> list[Tensor]:
        """Return the gradient of the loss for each latent, in the order given."""
        inputs = {name: value.detach().requires_grad_() for name, value in latents.items()}
        with self.autocast:
            sums = [value.sum() for value in self.model.log_likelihoods(inputs).values()]
        (torch.stack(sums).sum() * -self.nats_weight).backward()
        whole = self.tile == self.size
        slope = None if whole or self.objective.distortion == "mse" else self._slope(inputs)
        for top in range(0, self.size[0], self.tile[0]):
            for left in range(0, self.size[1], self.tile[1]):
                self._add_gradients(inputs, top, left, slope)
        return [value.grad for value in inputs.values() if value.grad is not None]

    def _add_gradients(self, inputs: Latents, top: int, left: int, slope: Tensor | None) -> None:
        """Add the gradients of the distortion in the tile at a place."""
        rows, columns = slice(top, top + self.tile[0]), slice(left, left + self.tile[1])
        above, below = _around(rows, self.size[0])
        before, after = _around(columns, self.size[1])
        part = {name: self._region(value, (above, below), (before, after)) for name, value in inputs.items()}
        with self.autocast:
            x_hat, _ = self.model.reconstruct_from(part, (below - above, after - before))
        x_hat = x_hat.float()[..., top - above :, left - before :][..., : self.tile[0], : self.tile[1]]
        x = self.x[..., rows, columns]
        if slope is None:
            share = x[0, 0].numel() / self.x[0, 0].numel()
            error = image_distortion(x_hat, x, self.objective.distortion).sum() * share
        else:
            # What the tile's pixels do to a distortion that is not a mean over pixels.
            error = (x_hat * slope[..., rows, columns]).sum()
        (error * self.distortion_weight).backward()

    def _region(self, latent: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Return the part of a latent that stands for a region of the picture."""
        if (rows, columns) == ((0, self.size[0]), (0, self.size[1])):
            return latent
        # How many pixels a position stands for: by the longer side of the picture, where no rounding hides it.
        axis = 0 if self.size[0] >= self.size[1] else 1
        scale = 16
        while -(-self.size[axis] // scale) > latent.shape[axis - 2]:
            scale *= 2
        (above, below), (before, after) = rows, columns
        return latent[..., above // scale : -(-below // scale), before // scale : -(-after // scale)]

    def _slope(self, inputs: Latents) -> Tensor:
        """Return the gradient of the distortion for the picture."""
        with torch.no_grad():
            x_hat, _ = self.model.reconstruct_from(inputs, self.size)
        x_hat.requires_grad_()
        (slope,) = torch.autograd.grad(image_distortion(x_hat, self.x, self.objective.distortion).sum(), x_hat)
        return slope


def _around(lines: slice, most: int) -> tuple[int, int]:
    """Return the first line and the end of some lines with the halo around them, of ``most``."""
    return max(0, lines.start - _HALO), min(most, lines.stop + _HALO)


def _candidate(cost: Cost, image: Image, latents: Latents, estimate: bool) -> Candidate:
    """Code latents, and make the picture that a decoder makes of them."""
    encoded = encode_image(cost.model, image, estimate, {name: value[0] for name, value in latents.items()})
    with torch.inference_mode():
        x_hat, _ = cost.model.reconstruct_from(latents, cost.size)
    picture = to_image(x_hat)
    distortion = cost.distortion(picture)
    return Candidate(encoded, picture, distortion, cost.loss(_nats(encoded), distortion))


def _nats(encoded: Encoded) -> float:
    """Return the size of a file in nats."""
    return 8 * len(encoded.data) * math.log(2)


def _bytes_a_pixel(model: LearnedCodec, like: Tensor, evaluate: Callable[[Latents, Size], object]) -> float:
    """Return the bytes that an evaluation of latents keeps for its gradient, for every pixel of the picture.

    What it keeps for pictures of any size drops out as a difference.
    """
    kept = []
    for side in (_ALIGNED, 2 * _ALIGNED):
        with torch.no_grad():
            latents = model.analyse(like.new_zeros(1, 3, side, side))
        inputs = {name: value.requires_grad_() for name, value in latents.items()}
        storages: dict[int, Tensor] = {}
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_keeper(storages), lambda tensor: tensor):
            evaluate(inputs, (side, side))
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in storages.values()))
    return (kept[1] - kept[0]) / (3 * _ALIGNED**2)


def _keeper(storages: dict[int, Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    return keep


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """While this context lasts, no weight of the model takes a gradient."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
