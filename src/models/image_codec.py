"""Images to ``.jiq`` bytes and back with a trained model."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.bitstream.container import FINGERPRINT_BYTES, SIZES, Container, positions
from src.bitstream.scan import MAX_POSITIONS, scan_name
from src.errors import BitstreamError, DataError
from src.layers.padding import pyramid
from src.models.fingerprint import fingerprint
from src.models.jointiq import JointIQNet, bits

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A coded image.

    Attributes:
        data: the whole file.
        header_bytes, payload_bytes: its two parts; the checksum counts as header.
        estimated_bits: what the float likelihoods of the training say of ``y`` and ``z``; None if not asked for.
        exact_bits: what their integer twins say, with an ideal coder; None if not asked for.
        y_hat, z_hat: the coded latents, int64 (M, h, w) and (N, ...).
        seconds: wall-clock time of the coding, without the estimate.
    """

    data: bytes
    header_bytes: int
    payload_bytes: int
    estimated_bits: dict[str, float] | None
    exact_bits: dict[str, float] | None
    y_hat: Tensor
    z_hat: Tensor
    seconds: float


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image, x_mid: final output and I's own output, 8-bit (H, W, 3).
        y_hat, z_hat: the decoded latents, int64.
        seconds: wall-clock time, from bytes to the final picture.
    """

    image: Image
    x_mid: Image
    y_hat: Tensor
    z_hat: Tensor
    seconds: float


@torch.inference_mode()
def encode_image(model: JointIQNet, image: Image, estimate: bool = True) -> Encoded:
    """Code an 8-bit RGB image (H, W, 3).

    Raises:
        DataError: the image is too large, or the model gives no finite latents for it.
    """
    height, width, _ = image.shape
    if positions(height, width) > MAX_POSITIONS:
        raise DataError(f"the image has {width}x{height} pixels; allowed: {SIZES}")
    # Derived from the weights once a model, not once an image.
    exact, identity = model.exact, fingerprint(model)
    began = time.perf_counter()
    y_hat, z_hat = model.latents(to_tensor(image, model.device))
    recorded = {"y": exact.record_y(y_hat[0], z_hat[0]), "z": exact.record_z(z_hat[0])}
    z, y = recorded["z"].encode(), recorded["y"].encode()
    y_int, z_int = y_hat[0].long().cpu(), z_hat[0].long().cpu()
    container = Container(identity[:FINGERPRINT_BYTES], model.scan.code, height, width, latents_crc(y_int, z_int), z, y)
    data = container.pack()
    seconds = time.perf_counter() - began
    estimated = exact_bits = None
    if estimate:
        exact_bits = {key: decisions.bits() for key, decisions in recorded.items()}
        estimated = {key: float(bits(value)) for key, value in model.log_likelihoods(y_hat, z_hat).items()}
    payload = container.payload_bytes
    return Encoded(data, len(data) - payload, payload, estimated, exact_bits, y_int, z_int, seconds)


@torch.inference_mode()
def decode_image(model: JointIQNet, data: bytes) -> Decoded:
    """Decode a whole ``.jiq`` file.

    Raises:
        BitstreamError: the file is damaged, or was written by another model; never a wrong picture.
    """
    fingerprint(model)
    began = time.perf_counter()
    y_hat, z_hat, size = decode_latents(model, data)
    x_hat, x_mid = model.reconstruct(y_hat[None].float(), size)
    image, mid = to_image(x_hat), to_image(x_mid)
    return Decoded(image, mid, y_hat.cpu(), z_hat.cpu(), time.perf_counter() - began)


@torch.inference_mode()
def decode_latents(model: JointIQNet, data: bytes) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """y_hat, z_hat (int64) and the image size (height, width) of a ``.jiq`` file: the part that is exact everywhere.

    Raises:
        BitstreamError: as :func:`decode_image`.
    """
    container = Container.unpack(data)
    expected = fingerprint(model)[:FINGERPRINT_BYTES]
    if container.fingerprint != expected:
        raise BitstreamError(
            f"the file was written by the model {container.fingerprint.hex()}, this one is {expected.hex()}"
        )
    if container.scan != model.scan.code:
        raise BitstreamError(f"the scan of the file is {scan_name(container.scan)}, the model's is {model.scan.name}")
    sizes = pyramid((container.height, container.width), 6)
    z_hat = model.exact.decode_z(container.z, sizes[6])
    y_hat = model.exact.decode_y(container.y, z_hat, sizes[4])
    if latents_crc(y_hat, z_hat) != container.latents_crc:
        raise BitstreamError("the decoded latents do not match their checksum; the file is damaged")
    return y_hat, z_hat, (container.height, container.width)


def latents_crc(y_hat: Tensor, z_hat: Tensor) -> int:
    """CRC-32 over z_hat, then y_hat, as little-endian int32 in (channel, row, column) order."""
    crc = 0
    for latent in (z_hat, y_hat):
        crc = zlib.crc32(latent.cpu().numpy().astype("<i4").tobytes(), crc)
    return crc


def to_tensor(image: Image, device: torch.device | str = "cpu") -> Tensor:
    """8-bit (H, W, 3) -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None].float() / 255


def to_image(x: Tensor) -> Image:
    """(1, 3, H, W) in [0, 1], clamped and rounded to 8 bits -> (H, W, 3)."""
    rounded: Image = x[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    return rounded
