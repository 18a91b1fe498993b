"""Images to ``.jiq`` bytes and back with a trained model."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jointiq.bitstream.container import FINGERPRINT_BYTES, SIZES, Container, positions, to_tenths
from jointiq.bitstream.scan import MAX_POSITIONS, scan_name
from jointiq.coding.fingerprint import fingerprint
from jointiq.entropy_models.base import Latents
from jointiq.errors import BitstreamError, DataError, ModelError
from jointiq.models.base import DecodedLatents, LearnedCodec
from jointiq.models.integer_codec import IntegerCodec
from jointiq.runtime import memory_failures_told, tf32

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A coded image.

    Attributes:
        data: the whole file.
        header_bytes, payload_bytes: its two parts; the checksum counts as header.
        estimated_bits: cost of each latent by the float likelihoods; None if not asked for.
        integer_bits: cost of each latent by the integer probabilities, with an ideal coder; None if not asked for, and
            for models that code on floats.
        latents: the coded latents by name, int64 (C, h, w).
        seconds: wall-clock time of the coding, without the estimate.
    """

    data: bytes
    header_bytes: int
    payload_bytes: int
    estimated_bits: dict[str, float] | None
    integer_bits: dict[str, float] | None
    latents: Latents
    seconds: float


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image, x_mid: final output and I's own output, 8-bit (H, W, 3).
        latents: the decoded latents by name, int64 (C, h, w).
        seconds: wall-clock time, from bytes to the final picture.
    """

    image: Image
    x_mid: Image
    latents: Latents
    seconds: float


@memory_failures_told()
@tf32(allowed=False)
@torch.inference_mode()
def encode_image(model: LearnedCodec, image: Image, estimate: bool = True, latents: Latents | None = None) -> Encoded:
    """Encode an 8-bit RGB image (H, W, 3).

    Args:
        estimate: also give the costs of the latents.
        latents: whole numbers, (C, h, w), to code in place of the model's own; of a model that is coded on integers.

    Raises:
        DataError: the image is too large (also for memory), or the model gives no finite latents for it.
    """
    height, width, _ = image.shape
    require_size(height, width)
    # Once a model: fingerprint and integers are not part of an image's time.
    identity = fingerprint(model)
    began = time.perf_counter()
    if latents is None:
        coded = model.encode(to_tensor(image, model.device))
    else:
        assert isinstance(model, IntegerCodec)
        coded = model.encode_latents(latents)
    crc = latents_crc(coded.symbols)
    tenths = None if model.quality is None else to_tenths(model.quality)
    container = Container(
        identity[:FINGERPRINT_BYTES], model.scan_code, height, width, crc, coded.side, coded.y, tenths
    )
    data = container.pack()
    seconds = time.perf_counter() - began
    estimated = integer_bits = None
    if estimate:
        integer_bits = coded.bits() or None
        estimated = coded.estimate()
    payload = container.payload_bytes
    return Encoded(data, len(data) - payload, payload, estimated, integer_bits, coded.symbols, seconds)


@memory_failures_told()
@tf32(allowed=False)
@torch.inference_mode()
def decode_image(model: LearnedCodec, data: bytes) -> Decoded:
    """Decode the bytes of a ``.jiq`` file.

    Raises:
        BitstreamError: the file is damaged, or was written by another model; a wrong picture is never returned.
        ModelError: the networks give no finite picture.
    """
    identity = fingerprint(model)
    began = time.perf_counter()
    decoded, size, model = _decode(model, data, identity)
    latents = {name: latent[None].float() for name, latent in decoded.latents.items()}
    x_hat, x_mid = model.reconstruct_from(latents, size)
    if not bool(torch.isfinite(x_hat).all()):
        raise ModelError("the model gives no finite picture for this file; its weights are damaged or diverged")
    image, mid = to_image(x_hat), to_image(x_mid)
    symbols = {name: symbol.cpu() for name, symbol in decoded.symbols.items()}
    return Decoded(image, mid, symbols, time.perf_counter() - began)


@memory_failures_told()
@tf32(allowed=False)
@torch.inference_mode()
def decode_latents(model: LearnedCodec, data: bytes) -> tuple[Latents, tuple[int, int]]:
    """Decode the latents (int64) and the image size (height, width) of a ``.jiq`` file, without the float networks.

    Raises:
        BitstreamError: as :func:`decode_image`.
    """
    decoded, size, _ = _decode(model, data, fingerprint(model))
    return decoded.symbols, size


def _decode(model: LearnedCodec, data: bytes, identity: bytes) -> tuple[DecodedLatents, tuple[int, int], LearnedCodec]:
    """The latents, the image's size, and the model at the file's quality."""
    container = Container.unpack(data)
    expected = identity[:FINGERPRINT_BYTES]
    if container.fingerprint != expected:
        raise BitstreamError(
            f"the file was written by the model {container.fingerprint.hex()}, this one is {expected.hex()}"
        )
    if container.scan != model.scan_code:
        here = scan_name(model.scan_code)
        raise BitstreamError(f"the scan of the file is {scan_name(container.scan)}, the model's is {here}")
    size = (container.height, container.width)
    model = model.at_tenths(container.tenths)
    decoded = model.decode(container.z, container.y, size)
    if latents_crc(decoded.symbols) != container.latents_crc:
        # Models that code on floats decode only where the same arithmetic gives the same floats.
        elsewhere = "" if model.integer_tensors() else ", or was written with another device, threads or versions"
        raise BitstreamError(f"the decoded latents do not match their checksum; the file is damaged{elsewhere}")
    return decoded, size, model


def require_size(height: int, width: int) -> None:
    """Refuse an image that is too large to be coded.

    Raises:
        DataError: it is.
    """
    if positions(height, width) > MAX_POSITIONS:
        raise DataError(f"the image has {width}x{height} pixels; allowed: {SIZES}")


def same_latents(encoded: Encoded, decoded: Decoded) -> bool:
    """Tell whether the decoded latents equal the encoded ones."""
    return encoded.latents.keys() == decoded.latents.keys() and all(
        torch.equal(latent, decoded.latents[name]) for name, latent in encoded.latents.items()
    )


def latents_crc(latents: Latents) -> int:
    """Return the CRC-32 over the latents, ``y`` last, as little-endian int32 in (channel, row, column) order."""
    crc = 0
    for latent in latents.values():
        crc = zlib.crc32(latent.cpu().numpy().astype("<i4").tobytes(), crc)
    return crc


def to_tensor(image: Image, device: torch.device | str = "cpu") -> Tensor:
    """Convert an 8-bit image (H, W, 3) to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None].float() / 255


def to_image(x: Tensor) -> Image:
    """Convert (1, 3, H, W) in [0, 1] to an image (H, W, 3), clamped and rounded to 8 bits."""
    rounded: Image = x[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    return rounded
