"""The exact entropy model: latents to bytes and back, on integers from z_hat to the probability index.

    bytes --> z_hat --> h_s --> c' --+
                                     +--> f + MPRM --> mixture --> binary decisions --> y_hat, step by step
    known y_hat --> c'', c''' -------+

The decoder knows only what is already decoded and goes step by step; the encoder knows everything and evaluates the
same integers a row at a time. As no sum is ever rounded, both get the same probabilities on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from jointiq.bitstream.binarisation import CodeStage, walk
from jointiq.bitstream.rans import DecisionDecoder
from jointiq.bitstream.scan import MAX_POSITIONS, Run, get_scan, grid_rows
from jointiq.entropy_models.gaussian_mixture import ExactMixture
from jointiq.entropy_models.integer.recorder import Recorder, in_range, reader
from jointiq.entropy_models.integer.storage import pack_layers, unpack_layers
from jointiq.entropy_models.zero_mean_gaussian import decode_prior, exact_log_sigma, record_prior
from jointiq.errors import UserError
from jointiq.layers.estimator import ExactEstimator
from jointiq.layers.global_context import ExactGlobalContext
from jointiq.layers.padding import Size, pyramid
from jointiq.layers.transforms import ExactHyperSynthesis

if TYPE_CHECKING:
    from jointiq.models.jointiq import JointIQNet


class ExactEntropyModel:
    """Integer entropy model of a JointIQ-Net.

    Args:
        config: of the model (``M``, ``G``, ``scan``, ``hyper_exp`` are read; with global context ``K`` and
            ``min_known``).
        tensors: the integers of :meth:`tensors`.
    """

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.config = config
        self.G, self.M = config["G"], config["M"]
        self.scan = get_scan(config["scan"])
        self._tensors = tensors
        layers = unpack_layers(tensors)
        self.h_s = ExactHyperSynthesis(
            [layers["h_s"][key] for key in ("deconv0", "deconv1", "conv")], config["hyper_exp"]
        )
        self.estimator = ExactEstimator(layers["estimator"], self.M)
        self.log_sigma = tensors["z_prior.log_sigma"].long()
        self.global_context = None
        if "global_context" in layers:
            weights = tensors["global_context.weights"].long()
            self.global_context = ExactGlobalContext(
                layers["global_context"]["transform"], weights, self.scan, config["K"], config["min_known"]
            )

    @classmethod
    def quantise(cls, model: JointIQNet) -> Self:
        """Derive the integers from the float weights of a model; the same on every machine."""
        tensors = pack_layers("h_s", ExactHyperSynthesis.quantise(model.h_s).layers())
        tensors |= pack_layers("estimator", ExactEstimator.quantise(model.estimator).layers)
        tensors["z_prior.log_sigma"] = exact_log_sigma(model.z_prior).int()
        if model.global_context is not None:
            context = ExactGlobalContext.quantise(model.global_context)
            tensors |= pack_layers("global_context", {"transform": context.transform})
            tensors["global_context.weights"] = context.weights.int()
        return cls(model.config, tensors)

    @property
    def channels(self) -> int:
        """Channels of y."""
        return self.M

    def tensors(self) -> dict[str, Tensor]:
        """All integers that define the model, by name: int16 weights, int64 biases, uint8 shifts, int32 tables."""
        return dict(self._tensors)

    def to(self, device: torch.device | str) -> Self:
        """The same model on ``device``."""
        return type(self)(self.config, {name: tensor.to(device) for name, tensor in self._tensors.items()})

    @property
    def device(self) -> torch.device:
        return self.log_sigma.device

    def record(self, latents: Mapping[str, Tensor]) -> dict[str, Recorder]:
        """The decisions that code ``z`` (N, ...) and ``y`` (M, h, w), integers."""
        return {"z": self.record_z(latents["z"]), "y": self.record_y(latents["y"], latents["z"])}

    def decode(self, segments: Mapping[str, bytes], size: Size) -> dict[str, Tensor]:
        """``z`` and ``y``, int64, of an image of the given size."""
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
        """The decisions that code z_hat (N, h, w): their bytes and their cost."""
        return record_prior(self.log_sigma, z_hat)

    def decode_z(self, data: bytes, size: Size) -> Tensor:
        """z_hat (N, *size), int64, from :meth:`encode_z`."""
        return decode_prior(self.log_sigma, data, size)

    def record_y(self, y_hat: Tensor, z_hat: Tensor) -> Recorder:
        """The decisions that code y_hat (M, h, w) given z_hat: their bytes and their cost."""
        y_hat = in_range(y_hat, self.device).permute(1, 2, 0).contiguous()
        self._start(z_hat, (y_hat.shape[0], y_hat.shape[1]))
        recorder = Recorder()
        self._record(recorder, y_hat)
        return recorder

    def _record(self, recorder: Recorder, y_hat: Tensor, first_step: int = 0) -> None:
        """Record y_hat (h, w, M); its steps count from ``first_step``."""
        height, width, _ = y_hat.shape
        if self.global_context is not None:
            self.global_context.write_grid(y_hat)
        rows = list(grid_rows(height, width))
        for run in rows:
            self.estimator.write(run, y_hat[run.row])
        order = torch.empty(height, width, dtype=torch.int64, device=self.device)
        for step, run in enumerate(self.scan.runs(height, width), start=first_step):
            order[run.index(self.device)] = step
        for run in rows:
            values = y_hat[run.row].flatten()
            recorder.record(self._distribution(run), values, order[run.row].repeat_interleave(self.M))

    def decode_y(self, data: bytes, z_hat: Tensor, size: Size) -> Tensor:
        """y_hat (M, *size), int64, from :meth:`encode_y`."""
        decoder = DecisionDecoder(data, self.channels * size[0] * size[1])
        self._start(z_hat, size)
        y_hat = self._decode(reader(decoder), size)
        decoder.finish()
        return y_hat.permute(2, 0, 1).contiguous()

    def _decode(self, read: CodeStage, size: Size) -> Tensor:
        """y_hat (*size, M) from the bits that ``read`` gives."""
        y_hat = torch.zeros(*size, self.M, dtype=torch.int64, device=self.device)
        for run in self.scan.runs(*size):
            values = walk(self._distribution(run), read).view(run.count, self.M)
            y_hat[run.index(self.device)] = values
            self.estimator.write(run, values)
            if self.global_context is not None:
                self.global_context.write(run, values)
        return y_hat

    def _start(self, z_hat: Tensor, size: Size) -> None:
        if size[0] * size[1] > MAX_POSITIONS:
            raise UserError(f"{size[0]}x{size[1]} latent positions; exact coding allows {MAX_POSITIONS}")
        self.estimator.start(self._c_prime(z_hat.to(self.device), size))
        if self.global_context is not None:
            self.global_context.start(*size)

    def _c_prime(self, z_hat: Tensor, size: Size) -> Tensor:
        return self.h_s(z_hat, size)

    def _distribution(self, run: Run) -> ExactMixture:
        c_global = None if self.global_context is None else self.global_context.read(run)
        return ExactMixture.of_parameters(self.estimator.read(run, c_global), self.G)
