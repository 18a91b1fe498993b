"""The codecs that are timed, with one interface: ours, and models of CompressAI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from compressai.latent_codecs import (
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from compressai.layers import CheckerboardMaskedConv2d
from compressai.models import (
    CompressionModel,
    Elic2022Official,
    JointAutoregressiveHierarchicalPriors,
    ScaleHyperprior,
    SimpleVAECompressionModel,
)

from jointiq.coding.image_codec import Image, decode_image, encode_image, to_tensor
from jointiq.evaluation.stopwatch import Moment
from jointiq.models.jointiq import JointIQNet
from tools.bench.codec import CHECKERBOARD, ELIC, HYPERPRIOR, THEIRS
from tools.bench.synthetic_latents import Latents, substitute


@dataclass(frozen=True)
class DecodeTime:
    """Time of a decode, and of its part from bytes to latents."""

    whole: Moment
    entropy: Moment


class Contender(Protocol):
    """A codec with its image and latents; :meth:`encode` comes before :meth:`decode`."""

    @property
    def coded_bytes(self) -> dict[str, int]:
        """Bytes of the last encode: ``total``, and ``payload`` without a header."""
        ...

    def encode(self) -> Moment:
        """Encode the image, from g_a to bytes."""
        ...

    def decode(self) -> DecodeTime:
        """Decode to the image.

        Raises:
            RuntimeError: the latents are not those encoded.
        """
        ...


class JointIQContender:
    """Our codec by the functions of ``src.codec``: 8-bit image to file and back."""

    def __init__(self, model: JointIQNet, image: Image, latents: Latents) -> None:
        substitute(model, latents)
        self.model, self.image, self.latents = model, image, latents
        self._synthesis = _Watch(model)

    def encode(self) -> Moment:
        began = Moment.now()
        self._encoded = encode_image(self.model, self.image, estimate=False)
        return Moment.now() - began

    @property
    def data(self) -> bytes:
        """The file of the last encode."""
        return self._encoded.data

    def decode(self) -> DecodeTime:
        began = Moment.now()
        decoded = decode_image(self.model, self._encoded.data)
        whole = Moment.now() - began
        same = torch.equal(decoded.latents["y"], self.latents.y[0].long()) and torch.equal(
            decoded.latents["z"], self.latents.z[0].long()
        )
        _require(same, "JointIQ-Net")
        return DecodeTime(whole, self._synthesis.began - began)

    @property
    def coded_bytes(self) -> dict[str, int]:
        """Bytes of the whole file, and of its entropy-coded segments."""
        return {"total": len(self._encoded.data), "payload": self._encoded.payload_bytes}


class Mbt2018Checkerboard(SimpleVAECompressionModel):
    """``mbt2018`` with CompressAI's checkerboard codec in place of its context: two steps a picture (He 2021).

    CompressAI's own model with this codec has the transforms of Cheng 2020, several times as large; with those of
    ``mbt2018``, which are ours too, the times differ by the entropy coding alone.
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        base = JointAutoregressiveHierarchicalPriors(N, M)
        self.g_a, self.g_s = base.g_a, base.g_s
        y = CheckerboardLatentCodec(
            {"y": GaussianConditionalLatentCodec(quantizer="ste")},
            base.entropy_parameters,
            CheckerboardMaskedConv2d(M, 2 * M, kernel_size=5, padding=2),
        )
        hyper = HyperLatentCodec(base.entropy_bottleneck, base.h_a, base.h_s, quantizer="ste")
        self.latent_codec = HyperpriorLatentCodec({"y": y, "hyper": hyper})


def elic(N: int, M: int) -> Elic2022Official:
    """Return ELIC with its channel groups, which at M = 192 are its own ones, in the same proportions."""
    return Elic2022Official(N, M, groups=[M // 12, M // 12, M // 6, M // 3, M // 3])


#: Models of CompressAI, made from N and M, by the names of contenders.
COMPRESSAI: dict[str, Callable[[int, int], CompressionModel]] = {
    THEIRS: JointAutoregressiveHierarchicalPriors,
    HYPERPRIOR: ScaleHyperprior,
    CHECKERBOARD: Mbt2018Checkerboard,
    ELIC: elic,
}


class CompressAIContender:
    """CompressAI's ``compress`` and ``decompress``, as they are."""

    def __init__(self, model: CompressionModel, image: Image, latents: Latents) -> None:
        substitute(model, latents)
        self.model, self.image, self.latents = model, image, latents
        self._synthesis = _Watch(model)

    @torch.inference_mode()
    def encode(self) -> Moment:
        began = Moment.now()
        self._coded: dict[str, Any] = self.model.compress(to_tensor(self.image))
        return Moment.now() - began

    @torch.inference_mode()
    def decode(self) -> DecodeTime:
        began = Moment.now()
        self.model.decompress(self._coded["strings"], self._coded["shape"])
        whole = Moment.now() - began
        _require(torch.equal(self._synthesis.inputs, self.latents.y), type(self.model).__name__)
        return DecodeTime(whole, whole - (self._synthesis.ended - self._synthesis.began))

    @property
    def coded_bytes(self) -> dict[str, int]:
        """Bytes of all strings; there is no header."""
        total = sum(len(strings[0]) for strings in self._coded["strings"])
        return {"total": total, "payload": total}


class _Watch:
    """Hooks that note when g_s of a model begins and ends, and its input."""

    def __init__(self, model: CompressionModel) -> None:
        synthesis = model.get_submodule("g_s")
        synthesis.register_forward_pre_hook(self._begin)
        synthesis.register_forward_hook(self._end)

    def _begin(self, _module: object, inputs: tuple[Any, ...]) -> None:
        self.inputs: torch.Tensor = inputs[0]
        self.began = Moment.now()

    def _end(self, _module: object, _inputs: object, _output: object) -> None:
        self.ended = Moment.now()


def _require(same: bool, name: str) -> None:
    if not same:
        raise RuntimeError(f"{name} decoded other latents than it had encoded")
