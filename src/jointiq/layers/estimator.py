"""The model parameter estimator f with its refinement module MPRM (JointIQ-Net section 3.2, Fig. 5).

    c'  (4x4xM of h_s(z_hat)) --+
                                +--> FC - FC - FC --> preliminary parameters --> MPRM --> parameters
    c'' (4x4xM of known y_hat) -+                                                  ^
    c''' (global context, 2M) -----------------------------------------------------+

One set of weights serves every position. The exact widths of Fig. 5 are not in the text of the paper; ours are
multiples of M set in the config (``model.estimator_width``, ``model.mprm_width``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from jointiq.bitstream.scan import ScanStep, grid_rows
from jointiq.layers.context import ABOVE, KNOWN_ENTRIES, KNOWN_IN_LAST_ROW, LEFT, WINDOW, WindowLinear, pad_window
from jointiq.layers.integer_layers import LEAKY_SLOPE, IntegerLinear, clamp_fixed_, leaky_relu_, to_fixed


class ParameterRefinement(nn.Module):
    """MPRM: two residual blocks of fully connected layers that refine the preliminary parameters.

    Args:
        parameters: channels of the preliminary parameters (9M for three Gaussians, 2M for one).
        context: channels of c''' (2M), or 0 without global context.
        width: channels between the two layers of a block.
    """

    BLOCKS = 2

    def __init__(self, parameters: int, context: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(parameters + context, width, 1) for _ in range(self.BLOCKS))
        self.expand = nn.ModuleList(nn.Conv2d(width, parameters, 1) for _ in range(self.BLOCKS))
        self.act = nn.LeakyReLU(LEAKY_SLOPE)

    def forward(self, parameters: Tensor, c_global: Tensor | None) -> Tensor:
        for reduce, expand in zip(self.reduce, self.expand, strict=True):
            inputs = parameters if c_global is None else torch.cat([parameters, c_global], 1)
            parameters = parameters + expand(self.act(reduce(inputs)))
        return parameters


class ParameterEstimator(nn.Module):
    """f: c', c'' and c''' of every position -> mixture parameters (B, parameters, H, W).

    Args:
        M: channels of y.
        parameters: output channels, see :mod:`jointiq.entropy_models.gaussian_mixture` for their order.
        width: hidden channels, in multiples of M.
        mprm_width: hidden channels of the refinement, in multiples of M; None leaves MPRM out.
        global_context: whether MPRM reads c'''.
    """

    def __init__(self, M: int, parameters: int, width: int, mprm_width: int | None, global_context: bool) -> None:
        super().__init__()
        self._add_windows(M, width * M)
        self.hidden = nn.Conv2d(width * M, width * M, 1)
        self.preliminary = nn.Conv2d(width * M, parameters, 1)
        self.act = nn.LeakyReLU(LEAKY_SLOPE)
        self.mprm = (
            None
            if mprm_width is None
            else ParameterRefinement(parameters, 2 * M if global_context else 0, mprm_width * M)
        )

    def _add_windows(self, M: int, outputs: int) -> None:
        """Make the layers that read the windows c' and c''."""
        self.from_hyper = WindowLinear(M, outputs, causal=False)
        self.from_known = WindowLinear(M, outputs, causal=True)

    def forward(self, c_prime: Tensor, y_hat: Tensor, c_global: Tensor | None = None) -> Tensor:
        """c_prime, y_hat: (B, M, H, W); c_global: (B, 2M, H, W) or None."""
        return self._pointwise(self.from_hyper(c_prime) + self.from_known(y_hat), c_global)

    def _pointwise(self, windows: Tensor, c_global: Tensor | None) -> Tensor:
        """Return the parameters from what the window layers give at each position, before its activation."""
        parameters = self.preliminary(self.act(self.hidden(self.act(windows))))
        return parameters if self.mprm is None else self.mprm(parameters, c_global)


class IntegerPointwise:
    """The integer layers of f after its windows, and of MPRM.

    Args:
        layers: ``hidden``, ``preliminary``, and ``reduce0``, ``expand0``, ... of MPRM; others are left alone.
    """

    def __init__(self, layers: Mapping[str, IntegerLinear]) -> None:
        self.layers = layers
        blocks = [i for i in range(ParameterRefinement.BLOCKS) if f"reduce{i}" in layers]
        self.blocks = [(layers[f"reduce{i}"], layers[f"expand{i}"]) for i in blocks]
        # The transposed weights of each block for the parameters, and for c'''.
        parameters = len(layers["preliminary"].bias)
        self.weights = [reduce.split(parameters, reduce.weight.shape[1] - parameters) for reduce, _ in self.blocks]

    @staticmethod
    def quantise(estimator: ParameterEstimator) -> dict[str, IntegerLinear]:
        """Quantise the layers of a float f, by name."""
        return {name: IntegerLinear.of_layer(layer) for name, layer in _pointwise_layers(estimator).items()}

    def restore(self, estimator: ParameterEstimator) -> None:
        """Set the layers of a float f to what the integers stand for."""
        for name, layer in _pointwise_layers(estimator).items():
            self.layers[name].restore(layer)

    def __call__(self, windows: Tensor, c_global: Tensor | None) -> Tensor:
        """Return the parameters (n, parameters) from the output of the window layer (n, E), which is overwritten."""
        parameters = self.layers["preliminary"](leaky_relu_(self.layers["hidden"](leaky_relu_(windows))))
        for (reduce, expand), (of_parameters, of_context) in zip(self.blocks, self.weights, strict=True):
            total = parameters @ of_parameters
            if c_global is not None:
                total.addmm_(c_global, of_context)
            clamp_fixed_(parameters.add_(expand(leaky_relu_(reduce.finish_(total)))))
        return parameters


class IntegerEstimator:
    """The integer network of :class:`ParameterEstimator`; an image is coded with the state that :meth:`begin` returns.

    Args:
        layers: ``window``, ``hidden``, ``preliminary``, and ``reduce0``, ``expand0``, ... of MPRM. The inputs of
            ``window`` are the whole window of c', then the known entries of the window of y_hat, each in (row, column,
            channel) order.

    Attributes:
        M: channels of y.
        hyper_weight, known_weight: the transposed weight of ``window`` for c', and for y_hat.
    """

    def __init__(self, layers: Mapping[str, IntegerLinear]) -> None:
        self.layers = dict(layers)
        self.M = layers["window"].weight.shape[1] // (WINDOW * WINDOW + KNOWN_ENTRIES)
        self.pointwise = IntegerPointwise(layers)
        sizes = (WINDOW * WINDOW * self.M, KNOWN_ENTRIES * self.M)
        self.hyper_weight, self.known_weight = layers["window"].split(*sizes)

    @classmethod
    def quantise(cls, estimator: ParameterEstimator) -> IntegerEstimator:
        """Quantise the weights of a float f."""
        M = estimator.from_known.in_channels
        hyper = estimator.from_hyper.weight.permute(0, 2, 3, 1).flatten(1)
        known = estimator.from_known.weight.permute(0, 2, 3, 1).flatten(1)[:, : KNOWN_ENTRIES * M]
        window = IntegerLinear.quantise(torch.cat([hyper, known], 1), estimator.from_hyper.bias)
        return cls({"window": window, **IntegerPointwise.quantise(estimator)})

    @torch.no_grad()
    def restore(self, estimator: ParameterEstimator) -> None:
        """Set the weights of a float f to what the integers stand for."""
        weight, bias = self.layers["window"].floats()
        hyper, known = weight.split([len(self.hyper_weight), len(self.known_weight)], 1)
        estimator.from_hyper.weight.copy_(hyper.view(-1, WINDOW, WINDOW, self.M).permute(0, 3, 1, 2))
        assert estimator.from_hyper.bias is not None
        estimator.from_hyper.bias.copy_(bias)
        whole = known.new_zeros(len(known), WINDOW * WINDOW, self.M)
        whole[:, :KNOWN_ENTRIES] = known.view(-1, KNOWN_ENTRIES, self.M)
        estimator.from_known.weight.copy_(whole.view(-1, ABOVE + 1, WINDOW, self.M).permute(0, 3, 1, 2))
        self.pointwise.restore(estimator)

    def begin(self, c_prime: Tensor) -> EstimatorState:
        """Begin an image: c' (M, h, w), fixed point."""
        return EstimatorState(self, c_prime)


class EstimatorState:
    """State of f for one image: all of c', and y_hat as far as it has been written.

    Args:
        network: whose layers are evaluated.
        c_prime: (M, h, w), fixed point.
    """

    def __init__(self, network: IntegerEstimator, c_prime: Tensor) -> None:
        self.network = network
        _, height, width = c_prime.shape
        windows = pad_window(c_prime[None])[0].permute(1, 2, 0).contiguous()
        # Row by row, because all windows of a large image together would fill gigabytes.
        rows = (
            step.view(windows, 0, 0, (WINDOW, 1, 0), values=WINDOW * network.M) for step in grid_rows(height, width)
        )
        self.from_hyper = torch.stack([row.transpose(0, 1).flatten(1) @ network.hyper_weight for row in rows])
        self.known = torch.zeros_like(windows)

    def write(self, step: ScanStep, y_hat: Tensor) -> None:
        """Record y_hat (step.count, M), integers, at the positions of a step."""
        step.view(self.known, ABOVE, LEFT).copy_(to_fixed(y_hat))

    def read(self, step: ScanStep, c_global: Tensor | None) -> Tensor:
        """Return the parameters of a step, (step.count, parameters); c_global (step.count, 2M) fixed point, or None."""
        M = self.network.M
        above = step.view(self.known, 0, 0, (ABOVE, 1, 0), values=WINDOW * M).transpose(0, 1)
        left = step.view(self.known, ABOVE, 0, values=KNOWN_IN_LAST_ROW * M)
        total = torch.cat([above.flatten(1), left], 1) @ self.network.known_weight
        total += step.view(self.from_hyper, 0, 0)
        return self.network.pointwise(self.network.layers["window"].finish_(total), c_global)


def _pointwise_layers(estimator: ParameterEstimator) -> dict[str, nn.Module]:
    """Return the layers after the windows by the names of their integers."""
    layers: dict[str, nn.Module] = {"hidden": estimator.hidden, "preliminary": estimator.preliminary}
    if estimator.mprm is not None:
        for i, (reduce, expand) in enumerate(zip(estimator.mprm.reduce, estimator.mprm.expand, strict=True)):
            layers |= {f"reduce{i}": reduce, f"expand{i}": expand}
    return layers
