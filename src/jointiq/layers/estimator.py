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


class ParameterHead(nn.Module):
    """The last layers of f for some of the channels: a fully connected one, then MPRM.

    Args:
        inputs: channels of the hidden layer before.
        parameters: output channels.
        context: channels of c''' (2M), or 0 without global context.
        mprm_width: hidden channels of the refinement; None leaves MPRM out.
    """

    def __init__(self, inputs: int, parameters: int, context: int, mprm_width: int | None) -> None:
        super().__init__()
        self.preliminary = nn.Conv2d(inputs, parameters, 1)
        self.mprm = None if mprm_width is None else ParameterRefinement(parameters, context, mprm_width)

    def forward(self, hidden: Tensor, c_global: Tensor | None) -> Tensor:
        parameters: Tensor = self.preliminary(hidden)
        return parameters if self.mprm is None else self.mprm(parameters, c_global)


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
        self.from_hyper = WindowLinear(M, width * M, causal=False)
        self.from_known = WindowLinear(M, width * M, causal=True)
        self.hidden = nn.Conv2d(width * M, width * M, 1)
        self.preliminary = nn.Conv2d(width * M, parameters, 1)
        self.act = nn.LeakyReLU(LEAKY_SLOPE)
        self.mprm = (
            None
            if mprm_width is None
            else ParameterRefinement(parameters, 2 * M if global_context else 0, mprm_width * M)
        )

    def forward(self, c_prime: Tensor, y_hat: Tensor, c_global: Tensor | None = None) -> Tensor:
        """c_prime, y_hat: (B, M, H, W); c_global: (B, 2M, H, W) or None."""
        windows = self.from_hyper(c_prime) + self.from_known(y_hat)
        parameters: Tensor = self.preliminary(self.act(self.hidden(self.act(windows))))
        return parameters if self.mprm is None else self.mprm(parameters, c_global)


class IntegerHead:
    """The integer layers of f after its hidden one, and of MPRM.

    Args:
        layers: ``preliminary``, and ``reduce0``, ``expand0``, ... of MPRM, each name after ``prefix``; others are left
            alone.
    """

    def __init__(self, layers: Mapping[str, IntegerLinear], prefix: str = "") -> None:
        self.layers = {name.removeprefix(prefix): layer for name, layer in layers.items() if name.startswith(prefix)}
        blocks = [i for i in range(ParameterRefinement.BLOCKS) if f"reduce{i}" in self.layers]
        self.blocks = [(self.layers[f"reduce{i}"], self.layers[f"expand{i}"]) for i in blocks]
        # The transposed weights of each block for the parameters, and for c'''.
        parameters = len(self.layers["preliminary"].bias)
        self.weights = [reduce.split(parameters, reduce.weight.shape[1] - parameters) for reduce, _ in self.blocks]

    @staticmethod
    def quantise(head: nn.Module, prefix: str = "") -> dict[str, IntegerLinear]:
        """Quantise the layers of a float module that has them as ``preliminary`` and ``mprm``, by name."""
        return {prefix + name: IntegerLinear.of_layer(layer) for name, layer in _head_layers(head).items()}

    def restore(self, head: nn.Module) -> None:
        """Set the layers of such a module to what the integers stand for."""
        for name, layer in _head_layers(head).items():
            self.layers[name].restore(layer)

    def __call__(self, hidden: Tensor, c_global: Tensor | None) -> Tensor:
        """Return the parameters (n, parameters) from the activations of the hidden layer (n, E)."""
        parameters = self.layers["preliminary"](hidden)
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
        self.head = IntegerHead(layers)
        sizes = (WINDOW * WINDOW * self.M, KNOWN_ENTRIES * self.M)
        self.hyper_weight, self.known_weight = layers["window"].split(*sizes)

    @classmethod
    def quantise(cls, estimator: ParameterEstimator) -> IntegerEstimator:
        """Quantise the weights of a float f."""
        M = estimator.from_known.in_channels
        hyper = estimator.from_hyper.weight.permute(0, 2, 3, 1).flatten(1)
        known = estimator.from_known.weight.permute(0, 2, 3, 1).flatten(1)[:, : KNOWN_ENTRIES * M]
        window = IntegerLinear.quantise(torch.cat([hyper, known], 1), estimator.from_hyper.bias)
        hidden = IntegerLinear.of_layer(estimator.hidden)
        return cls({"window": window, "hidden": hidden, **IntegerHead.quantise(estimator)})

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
        self.layers["hidden"].restore(estimator.hidden)
        self.head.restore(estimator)

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

    def write(self, step: ScanStep, symbols: Tensor) -> None:
        """Record the symbols of a step, integers, position by position."""
        step.view(self.known, ABOVE, LEFT).copy_(to_fixed(symbols).view(step.count, -1))

    def read(self, step: ScanStep, c_global: Tensor | None) -> list[Tensor]:
        """Return the parameters of a step, one tensor (step.count, parameters).

        Args:
            step: the step.
            c_global: c''' of its positions (step.count, 2M), fixed point, or None.
        """
        M = self.network.M
        above = step.view(self.known, 0, 0, (ABOVE, 1, 0), values=WINDOW * M).transpose(0, 1)
        left = step.view(self.known, ABOVE, 0, values=KNOWN_IN_LAST_ROW * M)
        total = torch.cat([above.flatten(1), left], 1) @ self.network.known_weight
        total += step.view(self.from_hyper, 0, 0)
        layers = self.network.layers
        hidden = layers["hidden"](leaky_relu_(layers["window"].finish_(total)))
        return [self.network.head(leaky_relu_(hidden), c_global)]


def _head_layers(head: nn.Module) -> dict[str, nn.Module]:
    """Return ``preliminary`` and the layers of ``mprm`` of a module by the names of their integers."""
    assert isinstance(head.preliminary, nn.Module)
    layers: dict[str, nn.Module] = {"preliminary": head.preliminary}
    if isinstance(head.mprm, ParameterRefinement):
        for i, (reduce, expand) in enumerate(zip(head.mprm.reduce, head.mprm.expand, strict=True)):
            layers |= {f"reduce{i}": reduce, f"expand{i}": expand}
    return layers
