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

from jointiq.bitstream.scan import Run
from jointiq.layers.context import ABOVE, KNOWN_ENTRIES, KNOWN_IN_LAST_ROW, LEFT, WINDOW, WindowLinear, pad_window
from jointiq.layers.integer_layers import ExactLinear, clamp_fixed_, leaky_relu_, to_fixed

# A power of two, so that the exact path divides by a shift.
LEAKY_SLOPE = 0.125


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
        hidden = self.act(self.from_hyper(c_prime) + self.from_known(y_hat))
        parameters = self.preliminary(self.act(self.hidden(hidden)))
        return parameters if self.mprm is None else self.mprm(parameters, c_global)


class ExactEstimator:
    """The integer twin of :class:`ParameterEstimator`: fixed-point parameters of the positions of one run at a time.

    ``start`` takes c' and forgets y_hat; ``write`` records values of y_hat; ``read`` evaluates f from what is recorded.

    Args:
        layers: ``window``, ``hidden``, ``preliminary``, and ``reduce0``, ``expand0``, ... of MPRM. The inputs of
            ``window`` are the whole window of c', then the known entries of the window of y_hat, each in (row, column,
            channel) order.
        M: channels of y.
    """

    def __init__(self, layers: Mapping[str, ExactLinear], M: int) -> None:
        self.layers = dict(layers)
        self.M = M
        self.blocks = [
            (layers[f"reduce{i}"], layers[f"expand{i}"])
            for i in range(ParameterRefinement.BLOCKS)
            if f"reduce{i}" in layers
        ]
        self._hyper_weight, self._known_weight = layers["window"].split(WINDOW * WINDOW * M, KNOWN_ENTRIES * M)

    @classmethod
    def quantise(cls, estimator: ParameterEstimator) -> ExactEstimator:
        """Quantise the weights of a float f."""
        M = estimator.from_known.in_channels
        hyper = estimator.from_hyper.weight.permute(0, 2, 3, 1).flatten(1)
        known = estimator.from_known.weight.permute(0, 2, 3, 1).flatten(1)[:, : KNOWN_ENTRIES * M]
        layers = {"window": ExactLinear.quantise(torch.cat([hyper, known], 1), estimator.from_hyper.bias)}
        floats: dict[str, nn.Module] = {"hidden": estimator.hidden, "preliminary": estimator.preliminary}
        if estimator.mprm is not None:
            for i, (reduce, expand) in enumerate(zip(estimator.mprm.reduce, estimator.mprm.expand, strict=True)):
                floats |= {f"reduce{i}": reduce, f"expand{i}": expand}
        layers |= {name: ExactLinear.of_layer(layer) for name, layer in floats.items()}
        return cls(layers, M)

    def start(self, c_prime: Tensor) -> None:
        """Begin an image: c' (M, h, w), fixed point."""
        _, height, width = c_prime.shape
        windows = pad_window(c_prime[None])[0].permute(1, 2, 0).contiguous()
        row_stride = windows.stride(0)
        window = (width, WINDOW, WINDOW * self.M)
        # Row by row, because all windows of a large image together would fill gigabytes.
        rows = (windows.as_strided(window, (self.M, row_stride, 1), row * row_stride) for row in range(height))
        self._from_hyper = torch.stack([row.flatten(1) @ self._hyper_weight for row in rows])
        self._known = torch.zeros_like(windows)

    def write(self, run: Run, y_hat: Tensor) -> None:
        """Record y_hat (run.count, M), integers, at the positions of a run."""
        self._view(self._known, run, ABOVE, LEFT, (run.count, self.M)).copy_(to_fixed(y_hat))

    def read(self, run: Run, c_global: Tensor | None) -> Tensor:
        """Parameters of a run: (run.count, parameters); c_global (run.count, 2M) fixed point, or None."""
        above = self._view(self._known, run, 0, 0, (run.count, ABOVE, WINDOW * self.M))
        left = self._view(self._known, run, ABOVE, 0, (run.count, KNOWN_IN_LAST_ROW * self.M))
        total = torch.cat([above.flatten(1), left], 1) @ self._known_weight
        total += self._view(self._from_hyper, run, 0, 0, (run.count, total.shape[1]))
        hidden = leaky_relu_(self.layers["window"].finish_(total))
        parameters = self.layers["preliminary"](leaky_relu_(self.layers["hidden"](hidden)))
        for reduce, expand in self.blocks:
            inputs = parameters if c_global is None else torch.cat([parameters, c_global], 1)
            parameters = clamp_fixed_(parameters + expand(leaky_relu_(reduce(inputs))))
        return parameters

    @staticmethod
    def _view(buffer: Tensor, run: Run, drow: int, dcolumn: int, shape: tuple[int, ...]) -> Tensor:
        """Entries of (rows, columns, C) at an offset from each position of a run.

        A middle axis of ``shape`` runs down the rows.
        """
        row, column, _ = buffer.stride()
        offset = (run.row + drow) * row + (run.column + dcolumn) * column
        along_run = run.drow * row + run.dcolumn * column
        return buffer.as_strided(shape, (along_run, row, 1) if len(shape) == 3 else (along_run, 1), offset)
