"""The integer network of the context-adaptive entropy model: latents to bytes and back, without a float.

    bytes --> z_hat --> h_s --> c' --+
                                     +--> f + MPRM --> mixture --> binary decisions --> y_hat, step by step
    known y_hat --> c'', c''' -------+

The decoder knows only what is already decoded and goes step by step. So does the encoder in the order ``quarters``; in
the others, as it knows everything, it evaluates the same integers a row at a time. As no sum is ever rounded, both get
the same probabilities on any machine.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from jointiq.bitstream.binarisation import CodeStage, binarise
from jointiq.bitstream.rans import DecisionDecoder
from jointiq.bitstream.scan import MAX_POSITIONS, Quarters, get_scan, grid_rows
from jointiq.entropy_models.base import IntegerEntropyModel
from jointiq.entropy_models.gaussian_mixture import IntegerMixture
from jointiq.entropy_models.integer.recorder import Recorder, in_range, reader
from jointiq.entropy_models.integer.storage import unpack_layers
from jointiq.entropy_models.zero_mean_gaussian import decode_prior, record_prior
from jointiq.errors import UserError
from jointiq.layers.block_context import IntegerBlockContext
from jointiq.layers.estimator import IntegerEstimator
from jointiq.layers.gains import interpolate_integers
from jointiq.layers.global_context import IntegerGlobalContext
from jointiq.layers.padding import Size, pyramid
from jointiq.layers.quarters import IntegerQuarterEstimator
from jointiq.layers.transforms import IntegerHyperSynthesis


class IntegerContextModel(IntegerEntropyModel):
    """Integer network of a :class:`jointiq.entropy_models.context.ContextEntropyModel`.

    Args:
        tensors: int16 weights, int64 biases, uint8 shifts, int32 tables, by name.
        G, scan, hyper_exp: settings of the entropy model.
        K, min_known: the same; read with global context.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        G: int,
        scan: str,
        hyper_exp: bool = False,
        K: int = 7,
        min_known: int = 30,
    ) -> None:
        super().__init__(tensors)
        self._settings = (G, scan, hyper_exp, K, min_known)
        self.G = G
        self.scan = get_scan(scan)
        layers = unpack_layers(tensors)
        self.h_s = IntegerHyperSynthesis(layers["h_s"], hyper_exp)
        quarters = isinstance(self.scan, Quarters)
        self.estimator: IntegerEstimator | IntegerQuarterEstimator = (
            IntegerQuarterEstimator(layers["estimator"]) if quarters else IntegerEstimator(layers["estimator"])
        )
        self.M = self.estimator.M
        self.log_sigma = tensors["z_prior.log_sigma"].long()
        self.global_context: IntegerGlobalContext | IntegerBlockContext | None = None
        if "global_context" in layers:
            transform, weights = layers["global_context"]["transform"], tensors["global_context.weights"].long()
            self.global_context = (
                IntegerBlockContext(transform, weights, K, min_known)
                if isinstance(self.scan, Quarters)
                else IntegerGlobalContext(transform, weights, self.scan, K, min_known)
            )

    @property
    def channels(self) -> int:
        """Channels of y."""
        return len(self.h_s.conv.weight)

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self._moved(device), *self._settings)

    def at(self, tenths: int) -> Self:
        """Return the network of a model for all rates at a quality: its prior of z is the curve's value there."""
        view = copy.copy(self)
        view.log_sigma = interpolate_integers(self.log_sigma, tenths)
        return view

    def record(self, latents: Mapping[str, Tensor]) -> dict[str, Recorder]:
        return {"z": self.record_z(latents["z"]), "y": self.record_y(latents["y"], latents["z"])}

    def decode(self, segments: Mapping[str, bytes], size: Size) -> dict[str, Tensor]:
        sizes = pyramid(size, 6)
        z_hat = self.decode_z(segments["z"], sizes[6])
        return {"z": z_hat, "y": self.decode_y(segments["y"], z_hat, sizes[4])}

    def encode_z(self, z_hat: Tensor) -> bytes:
        """Code z_hat (N, h, w), integers."""
        return self.record_z(z_hat).encode()

    def encode_y(self, y_hat: Tensor, z_hat: Tensor) -> bytes:
        """Code y_hat (M, h, w), integers, given z_hat."""
        return self.record_y(y_hat, z_hat).encode()

    def record_z(self, z_hat: Tensor) -> Recorder:
        """Record the decisions that code z_hat (N, h, w): their bytes and their cost."""
        return record_prior(self.log_sigma, z_hat)

    def decode_z(self, data: bytes, size: Size) -> Tensor:
        """Decode z_hat (N, *size), int64, from :meth:`encode_z`."""
        return decode_prior(self.log_sigma, data, size)

    def record_y(self, y_hat: Tensor, z_hat: Tensor) -> Recorder:
        """Record the decisions that code y_hat (M, h, w) given z_hat: their bytes and their cost."""
        y_hat = in_range(y_hat, self.device).permute(1, 2, 0).contiguous()
        recorder = Recorder()
        self._record(recorder, y_hat, self._hyper(z_hat, (y_hat.shape[0], y_hat.shape[1])))
        return recorder

    def _record(self, recorder: Recorder, y_hat: Tensor, hyper: Tensor, first_step: int = 0) -> None:
        """Record y_hat (h, w, M), given the output of h_s; its steps count from ``first_step``."""
        height, width, _ = y_hat.shape
        state = ContextState(self, hyper)
        if isinstance(self.scan, Quarters):
            for number, quarter in enumerate(self.scan.steps(height, width), start=first_step):
                symbols = quarter.take(y_hat)
                recorder.record(state.distribution(quarter), symbols, torch.full_like(symbols, number))
                state.write(quarter, symbols)
            return
        state.write_grid(y_hat)
        order = torch.empty(height, width, dtype=torch.int64, device=self.device)
        for number, step in enumerate(self.scan.steps(height, width), start=first_step):
            order[step.index(self.device)] = number
        for step in grid_rows(height, width):
            values = y_hat[step.row].flatten()
            recorder.record(state.distribution(step), values, order[step.row].repeat_interleave(self.M))

    def decode_y(self, data: bytes, z_hat: Tensor, size: Size) -> Tensor:
        """Decode y_hat (M, *size), int64, from :meth:`encode_y`."""
        decoder = DecisionDecoder(data, self.channels * size[0] * size[1])
        y_hat = self._decode(reader(decoder), self._hyper(z_hat, size))
        decoder.finish()
        return y_hat.permute(2, 0, 1).contiguous()

    def _decode(self, read: CodeStage, hyper: Tensor) -> Tensor:
        """Decode y_hat (h, w, M) from the bits that ``read`` gives and the output of h_s."""
        _, height, width = hyper.shape
        state = ContextState(self, hyper)
        y_hat = torch.zeros(height, width, self.M, dtype=torch.int64, device=self.device)
        for step in self.scan.steps(height, width):
            symbols = binarise(state.distribution(step), read)
            step.put(y_hat, symbols)
            state.write(step, symbols)
        return y_hat

    def _hyper(self, z_hat: Tensor, size: Size) -> Tensor:
        """Return the output of h_s, (channels of y, *size), fixed point."""
        if size[0] * size[1] > MAX_POSITIONS:
            raise UserError(f"{size[0]}x{size[1]} latent positions; exact coding allows {MAX_POSITIONS}")
        return self.h_s(z_hat.to(self.device), size)


class ContextState:
    """State of coding one image: the known part of its y_hat, and the distributions that follow from it.

    Args:
        model: whose networks are evaluated.
        c_prime: c' (M, h, w), fixed point.
    """

    def __init__(self, model: IntegerContextModel, c_prime: Tensor) -> None:
        self.G = model.G
        # Their steps are those of the model's scan.
        self.estimator: Any = model.estimator.begin(c_prime)
        context = model.global_context
        self.global_context: Any = None if context is None else context.begin(c_prime.shape[1], c_prime.shape[2])

    def write(self, step: Any, symbols: Tensor) -> None:
        """Record the symbols of a step just coded, integers, as its ``take`` orders them."""
        self.estimator.write(step, symbols)
        if self.global_context is not None:
            self.global_context.write(step, symbols)

    def write_grid(self, y_hat: Tensor) -> None:
        """Record a whole y_hat (h, w, M): the encoder's side."""
        for row in grid_rows(y_hat.shape[0], y_hat.shape[1]):
            self.estimator.write(row, y_hat[row.row].flatten())
        if self.global_context is not None:
            self.global_context.write_grid(y_hat)

    def distribution(self, step: Any) -> IntegerMixture:
        """Return the distributions of the symbols of a step, position by position."""
        c_global = None if self.global_context is None else self.global_context.read(step)
        return IntegerMixture.of_parameters(*self.estimator.read(step, c_global), G=self.G)
