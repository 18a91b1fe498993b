"""A fully factorised prior with a trained density for each channel: training likelihood and its integer form.

The density is that of Balle 2018 (appendix 6.1): the logits of its cumulative are a small monotonic network, one for
each channel. Balle 2017 had piecewise linear densities; this one is smoother and as free, and what the field uses (our
choice).

The integer form is the cumulative as integers, a row for each channel. It is derived once, in float64 on the CPU, and
stored in an export. Machines may differ in the last digits of tanh and exp; rounding to 24 bits hides that but for a
rare entry (of about one derived table in a thousand), and then the fingerprints of two derived tables differ: an error,
never a wrong picture. An export decodes the same everywhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.entropy_models import register_entropy_model
from jointiq.entropy_models.base import EntropyModel, Latents
from jointiq.entropy_models.integer.factorized import TABLE_BITS, IntegerFactorized
from jointiq.layers.integer_layers import require_finite
from jointiq.layers.padding import Size, pyramid
from jointiq.layers.quantize import add_uniform_noise, round_ste
from jointiq.parts import Settings

# Hidden widths of the monotonic networks, and the width of their density before training.
WIDTHS = (3, 3, 3, 3)
INITIAL_SCALE = 10.0
# Keeps the logarithm finite where float32 cannot tell two cumulatives apart.
GAP_MIN = 1e-7

# A table reaches to the power of two beyond which no channel has mass left; values outside cost more, but can be coded.
REACH_MIN, REACH_MAX = 8, 4096


class FactorizedDensity(nn.Module):
    """log p(y) for y of shape (B, C, h, w): one density for each channel, convolved with U(-1/2, 1/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = (1, *WIDTHS, 1)
        scale = INITIAL_SCALE ** (1 / (len(sizes) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            # softplus of these is 1 / (scale * outputs): each layer divides its input by `scale`.
            start = math.log(math.expm1(1 / scale / outputs))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.empty(channels, outputs, 1).uniform_(-0.5, 0.5)))
        for outputs in WIDTHS:
            self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))

    def logits(self, values: Tensor) -> Tensor:
        """Logits of the cumulative at ``values``, (C, 1, n) each; they rise with the values."""
        out = values
        for index, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            out = F.softplus(matrix) @ out + bias
            if index < len(self.factors):
                out = out + torch.tanh(self.factors[index]) * torch.tanh(out)
        return out

    def forward(self, y: Tensor) -> Tensor:
        """Log-likelihood in nats, shape of ``y``, always in float32, not floored."""
        with torch.autocast(y.device.type, enabled=False):
            by_channel = y.float().transpose(0, 1)
            values = by_channel.reshape(len(by_channel), 1, -1)
            lower, upper = self.logits(values - 0.5), self.logits(values + 0.5)
            # log(s(u) - s(l)) with the sigmoid s, as log s(u) + log s(-l) + log(1 - e^(l - u)): no digits cancel.
            gap = (upper - lower).clamp(min=GAP_MIN)
            mass = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-gap))
            return mass.view(by_channel.shape).transpose(0, 1)


@torch.no_grad()
def integer_cdf(density: FactorizedDensity) -> Tensor:
    """The cumulatives as integers out of 2^24, int32 (C, 2 reach + 2): entry i is the mass below i - reach - 1/2.

    Raises:
        ModelError: weights that are not finite.
    """
    for parameter in density.parameters():
        require_finite(parameter)
    precise = copy.deepcopy(density).cpu().double()
    total = 1 << TABLE_BITS
    reach = REACH_MIN
    while True:
        edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
        cdf = torch.round(torch.sigmoid(precise.logits(edges.expand(len(precise.matrices[0]), 1, -1))[:, 0]) * total)
        if reach == REACH_MAX or bool((cdf[:, 0] == 0).all() and (cdf[:, -1] == total).all()):
            # Rising even where the last digit of a float was not.
            return cdf.cummax(1).values.int()
        reach *= 2


@register_entropy_model("factorized", Settings)
class FactorizedEntropyModel(EntropyModel):
    """One trained density for each channel of y, and no side information.

    Training adds noise to y, for the rate and for g_s alike (Balle 2017, section 3).
    """

    IN_FORMAT = True

    # No table gives the density back.
    FLOAT = ("prior",)

    def __init__(self, N: int, M: int, settings: Settings) -> None:
        super().__init__()
        self.prior = FactorizedDensity(M)

    def forward(self, y: Tensor, quality: Tensor | None = None) -> tuple[Latents, Tensor]:
        y_tilde = add_uniform_noise(y) if self.training else round_ste(y)
        return {"y": self.prior(y_tilde)}, y_tilde

    def analyse(self, y: Tensor) -> Latents:
        return {"y": y}

    def log_likelihoods(self, latents: Latents, quality: Tensor | None = None) -> Latents:
        return {"y": self.prior(latents["y"])}

    def latent_shape(self, size: Size) -> Size:
        return pyramid(size, 4)[4]

    def integers(self) -> IntegerFactorized:
        return IntegerFactorized({"cdf": integer_cdf(self.prior)})

    def restore(self, tensors: Mapping[str, Tensor]) -> IntegerFactorized:
        return IntegerFactorized(tensors)
