"""CompressAI's own models in this framework: trained by its loss, coded into its files, measured beside its systems.

Balle 2018 (``bmshj2018-hyperprior``), Minnen 2018 (``mbt2018-mean``, ``mbt2018``) and others are CompressAI's classes,
unchanged: its networks, its training ``forward``, its entropy models and its coder. Three things follow.

- Coding works on floats, so a file decodes only where they come out as they did for its encoder: on the same device,
  with the same threads and versions. Elsewhere the checksum of the latents says so; it never is a wrong picture.
- Sides that are no multiples of 64 are padded with zeros, half of them on each side, and the result is cropped: the
  rule of ``compressai.utils.eval_model``. The padding is coded too.
- Rounding has CompressAI's rules. Training adds noise, also to what g_s reads. Otherwise a latent is rounded to its
  mean plus a whole number; but the ``forward`` of the autoregressive models (mbt2018, cheng2020) gives their context
  and g_s the plainly rounded y. Files are coded, and their estimates made, with the former.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, EntropyModel, GaussianConditional
from compressai.layers import MaskedConv2d
from compressai.models import (
    Cheng2020Anchor,
    Cheng2020Attention,
    FactorizedPrior,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
    get_scale_table,
)
from compressai.ops import compute_padding
from compressai.registry import register_model
from compressai.zoo import load_state_dict
from torch import Tensor, nn

from jointiq.bitstream.scan import PARALLEL, SCANS
from jointiq.enhancers import build_enhancer
from jointiq.entropy_models.base import Latents
from jointiq.entropy_models.integer.compressai_symbols import decoded, encoded
from jointiq.errors import BitstreamError, ConfigError, ModelError
from jointiq.layers.padding import Size
from jointiq.models.base import CodedLatents, DecodedLatents, LearnedCodec, compression_output, require_finite
from jointiq.parts import Settings, at_least, one_of

#: Image models of CompressAI's zoo, by the names they have there: those that its `eval_model` loads, of a fixed rate.
ARCHITECTURES: dict[str, type[Any]] = {
    "bmshj2018-factorized": FactorizedPrior,
    "bmshj2018-hyperprior": ScaleHyperprior,
    "mbt2018-mean": MeanScaleHyperprior,
    "mbt2018": JointAutoregressiveHierarchicalPriors,
    "cheng2020-anchor": Cheng2020Anchor,
    "cheng2020-attn": Cheng2020Attention,
}
#: Sides are padded to multiples of this.
MULTIPLE = 64
#: Pixels of a side that one position of y stands for.
Y_STEP = 16
# Buffers that CompressAI's coder reads; they are empty before its `update`.
_TABLES = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table")
# What damaged data can make CompressAI's decoders raise.
_GARBAGE = (ValueError, RuntimeError, IndexError, OverflowError)


class _AllDecoded(Exception):
    """Ends CompressAI's decoder when all latents are decoded and g_s would begin."""


@dataclass(frozen=True)
class CompressAISettings(Settings):
    """Settings of :class:`CompressAICodec`.

    Attributes:
        arch: name of the model in the zoo (:data:`ARCHITECTURES`).
        N, M: channels of the transforms and of y. In the cheng2020 models, M = N. CompressAI's coder crashes on a lone
            symbol, which is what one channel of a small image is.
    """

    arch: str = one_of(ARCHITECTURES, shapeless=True)
    N: int = at_least(2)
    M: int = at_least(2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_square and self.M != self.N:
            raise ConfigError("model.M", self.M, f"{self.N}, as model.N, with model.arch={self.arch}")

    @property
    def is_square(self) -> bool:
        """Whether M is N."""
        return issubclass(ARCHITECTURES[self.arch], Cheng2020Anchor)


@register_model("compressai")
class CompressAICodec(LearnedCodec):
    """A model of CompressAI's zoo, with or without a quality-enhancement network behind it.

    Args:
        enhancer: config of Q (see :func:`jointiq.enhancers.build_enhancer`); None leaves Q out.
        values: the settings.

    Raises:
        ConfigError: an unknown or missing key, or a value that is not allowed.

    Attributes:
        net: CompressAI's model. It always runs in float32: its entropy models do not support autocast.
    """

    SETTINGS = CompressAISettings
    DECODER = ("net", "enhancer")
    PADS_BOTH_SIDES = True

    settings: CompressAISettings

    def __init__(self, enhancer: Mapping[str, Any] | None = None, **values: Any) -> None:
        super().__init__()
        self.settings = self.SETTINGS.of(values, self.registered_name())
        self.config = {
            "name": self.registered_name(),
            **self.settings.as_dict(),
            "enhancer": None if enhancer is None else dict(enhancer),
        }
        network, N, M = ARCHITECTURES[self.settings.arch], self.settings.N, self.settings.M
        self.net: Any = network(N) if self.settings.is_square else network(N, M)
        self.entropy_model = None
        for model in self._coders().values():
            model.register_load_state_dict_pre_hook(_fit_tables)
        self.enhancer = build_enhancer(enhancer)
        self.forget()

    @classmethod
    def from_zoo(cls, state_dict: Mapping[str, Tensor]) -> Self:
        """Return the model of a state dict of CompressAI's zoo or training, with its weights and its tables.

        Raises:
            KeyError, RuntimeError, ValueError: not one of :data:`ARCHITECTURES`.
        """
        state = load_state_dict(dict(state_dict))
        arch = _architecture(state)
        net = ARCHITECTURES[arch].from_state_dict(state)
        model = cls(arch=arch, N=net.N, M=net.M)
        model.net.load_state_dict(state)
        return model

    # ---- networks

    @property
    def side(self) -> tuple[str, ...]:
        return ("z",) if isinstance(self.net, ScaleHyperprior) else ()

    def compression(self, x: Tensor) -> dict[str, Any]:
        """Run CompressAI's model, which floors the likelihoods at 1e-9 itself."""
        with torch.autocast(x.device.type, enabled=False):
            out = self.net(_padded(x.float()))
        x_mid = _cropped(out["x_hat"], (x.shape[-2], x.shape[-1]))
        return compression_output(x_mid, {name: out["likelihoods"][name].log() for name in (*self.side, "y")})

    def analyse(self, x: Tensor) -> Latents:
        """Return the latents of the padded images."""
        y = self.net.g_a(_padded(x))
        if not self.side:
            return {"y": y}
        return {"z": self.net.h_a(y if self._has_means else y.abs()), "y": y}

    def latents(self, x: Tensor) -> Latents:
        """Return the latents rounded as ``forward`` does outside of training."""
        latents = require_finite(self.analyse(x))
        if not self.side:
            return {"y": self.net.entropy_bottleneck(latents["y"], training=False)[0]}
        z_hat, _ = self.net.entropy_bottleneck(latents["z"], training=False)
        means = None if self._is_autoregressive or not self._has_means else self.net.h_s(z_hat).chunk(2, 1)[1]
        return {"z": z_hat, "y": self.net.gaussian_conditional.quantize(latents["y"], "dequantize", means)}

    def synthesise(self, latents: Latents, size: Size) -> Tensor:
        with torch.autocast(latents["y"].device.type, enabled=False):
            return _cropped(self.net.g_s(latents["y"].float()), size)

    def log_likelihoods(self, latents: Latents) -> Latents:
        y_hat, net = latents["y"], self.net
        if not self.side:
            return {"y": net.entropy_bottleneck(y_hat, training=False)[1].log()}
        z_hat = latents["z"]
        parameters = net.h_s(z_hat)
        if self._is_autoregressive:
            parameters = net.entropy_parameters(torch.cat((parameters, net.context_prediction(y_hat)), dim=1))
        scales, means = parameters.chunk(2, 1) if self._has_means else (parameters, None)
        _, likelihood = net.gaussian_conditional(y_hat, scales, means, training=False)
        return {"z": net.entropy_bottleneck(z_hat, training=False)[1].log(), "y": likelihood.log()}

    def aux_loss(self) -> Tensor:
        """Return CompressAI's auxiliary loss, which trains the quantiles of its factorised priors."""
        loss: Tensor = self.net.aux_loss()
        return loss

    # ---- coding

    @property
    def _has_means(self) -> bool:
        return isinstance(self.net, MeanScaleHyperprior)

    @property
    def _is_autoregressive(self) -> bool:
        return isinstance(self.net, JointAutoregressiveHierarchicalPriors)

    def _coders(self) -> dict[str, EntropyModel]:
        """Return CompressAI's entropy model of each latent, in the order of decoding."""
        if not self.side:
            return {"y": self.net.entropy_bottleneck}
        return {"z": self.net.entropy_bottleneck, "y": self.net.gaussian_conditional}

    @property
    def scan_code(self) -> int:
        return SCANS["raster"].code if self._is_autoregressive else PARALLEL

    def latent_shape(self, size: Size) -> Size:
        return self._sizes(size)[(*self.side, "y")[0]]

    def _sizes(self, size: Size) -> dict[str, Size]:
        """Return height and width of each latent."""
        height, width = (-(-side // MULTIPLE) for side in size)
        return {"z": (height, width), "y": (height * MULTIPLE // Y_STEP, width * MULTIPLE // Y_STEP)}

    def encode(self, x: Tensor) -> CodedLatents:
        """Code by CompressAI's coder, which does not show its probabilities."""
        self.update()
        with contextlib.ExitStack() as stack:
            passed = {name: stack.enter_context(encoded(model)) for name, model in self._coders().items()}
            y, *side = (strings[0] for strings in self.net.compress(_padded(x))["strings"])
        sizes = self._sizes((x.shape[-2], x.shape[-1]))
        symbols = {name: one.symbols(sizes[name]).cpu() for name, one in passed.items()}
        latents = {name: one.latents(sizes[name]) for name, one in passed.items()}
        return CodedLatents(b"".join(side), y, symbols, self, latents)

    def decode(self, side: bytes, y: bytes, size: Size) -> DecodedLatents:
        self.update()
        if side and not self.side:
            raise BitstreamError("the file holds side information that its model does not have")
        sizes = self._sizes(size)
        channels = {"z": self.settings.N, "y": self.settings.M}
        strings = [
            [_with_margin(data, channels[name] * sizes[name][0] * sizes[name][1])]
            for name, data in {"y": y, **dict.fromkeys(self.side, side)}.items()
        ]
        with contextlib.ExitStack() as stack:
            passed = {name: stack.enter_context(decoded(model)) for name, model in self._coders().items()}
            stack.enter_context(_ended(self.net.g_s))
            try:
                self.net.decompress(strings, torch.Size(self.latent_shape(size)))
            except _GARBAGE as error:
                raise BitstreamError("the compressed data is damaged, or was written on another device") from error
        return DecodedLatents(
            {name: one.symbols(sizes[name]) for name, one in passed.items()},
            {name: one.latents(sizes[name]) for name, one in passed.items()},
        )

    def update(self, *_args: Any, force: bool = False, **_kwargs: Any) -> bool:
        """Derive the coder's tables from the weights, on the CPU; True if that was done (the contract of CompressAI).

        Raises:
            ModelError: weights that are not finite.
        """
        # The forward pass of a masked convolution zeroes its weights for good; a fingerprint must not depend on whether
        # there was one.
        for module in self.net.modules():
            if isinstance(module, MaskedConv2d):
                module.weight.data *= module.mask
        if self.net.entropy_bottleneck.offset.numel() and not force:
            return False
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.net.parameters()):
            raise ModelError("the model has weights that are not finite; its training diverged")
        # Tensors made in inference mode could not be overwritten when weights are loaded later.
        with torch.inference_mode(False), torch.no_grad():
            for model in self._coders().values():
                derived = copy.deepcopy(model).cpu()
                if isinstance(derived, GaussianConditional):
                    derived.update_scale_table(get_scale_table(), force=True)
                elif isinstance(derived, EntropyBottleneck):
                    derived.update(force=True)
                for name in _tables_of(model):
                    setattr(model, name, getattr(derived, name).to(self.device))
        self.derived.pop("fingerprint", None)
        return True

    def forget(self) -> None:
        """Drop the coder's tables too."""
        super().forget()
        for model in self._coders().values():
            for name in _tables_of(model):
                setattr(model, name, getattr(model, name).new_empty(0))


def _architecture(state: Mapping[str, Tensor]) -> str:
    """Return the architecture of a state dict, by the names and sizes of its layers."""
    if "context_prediction.weight" in state:
        if "g_a.0.conv1.weight" not in state:
            return "mbt2018"
        return "cheng2020-anchor" if "g_a.3.conv1.weight" in state else "cheng2020-attn"
    if "h_a.0.weight" not in state:
        return "bmshj2018-factorized"
    # h_s gives scales, or scales and means.
    return "bmshj2018-hyperprior" if len(state["h_s.4.weight"]) == len(state["g_a.6.weight"]) else "mbt2018-mean"


def _padded(x: Tensor) -> Tensor:
    """Pad images (B, 3, H, W) with zeros on all sides, to multiples of 64."""
    return F.pad(x, compute_padding(x.shape[-2], x.shape[-1], min_div=MULTIPLE)[0])


def _cropped(x: Tensor, size: Size) -> Tensor:
    """Crop padded images back to ``size``."""
    return F.pad(x, compute_padding(*size, min_div=MULTIPLE)[1])


def _with_margin(data: bytes, symbols: int) -> bytes:
    """Append zeros to a coded string, because CompressAI's decoder does not check where its data ends.

    After an escape it reads up to 15 times the length of the data beyond it, and in the zeros a few bytes a symbol.
    """
    return data + bytes(16 * len(data) + 4 * symbols + 4096)


@contextlib.contextmanager
def _ended(g_s: nn.Module) -> Iterator[None]:
    """Leave the context where g_s would be called."""

    def end(*_: Any) -> None:
        raise _AllDecoded

    hook = g_s.register_forward_pre_hook(end)
    try:
        with contextlib.suppress(_AllDecoded):
            yield
    finally:
        hook.remove()


def _tables_of(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_buffers(recurse=False) if name in _TABLES]


def _fit_tables(model: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Resize the tables of an entropy model to those about to be loaded (a hook of ``load_state_dict``)."""
    for name in _tables_of(model):
        if prefix + name in state:
            setattr(model, name, getattr(model, name).new_empty(state[prefix + name].shape))
