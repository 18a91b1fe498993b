"""The three functions of ``import jointiq``: load a model, encode an image to bytes, decode it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from jointiq.coding import shipped
from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.coding.load import load_model
from jointiq.coding.refine import refine_image
from jointiq.data.images import to_array
from jointiq.errors import DataError
from jointiq.models.base import LearnedCodec
from jointiq.runtime import pick_device

_decoders = shipped.Decoders()


def load(model: str | Path, device: torch.device | str = "cpu") -> LearnedCodec:
    """Return a trained model, in evaluation mode on ``device``.

    It is a ``compressai.models.CompressionModel``: ``model(x)`` gives ``x_hat`` and ``likelihoods``,
    ``model.compress(x)`` and ``model.decompress(strings, shape)`` the strings and back, ``x`` (B, 3, H, W) in [0, 1].

    Args:
        model: the name of one that comes with the package (``"jointiq-mse"``), or the path of a training checkpoint, an
            export, or a ``.pth.tar`` of CompressAI's image models.

    Raises:
        jointiq.errors.UserError: no such model or device, or a file that cannot be used. Nothing in a file is executed.
    """
    device = pick_device(str(device))
    named = shipped.find(model)
    return load_model(model, device) if named is None else shipped.load_shipped(named, device)


def encode(
    model: LearnedCodec, image: Image.Image | NDArray[np.uint8], quality: float | None = None, refine: int = 0
) -> bytes:
    """Encode an image and return the bytes of its ``.jiq`` file; ``8 * len(data) / (H * W)`` is the bits per pixel.

    Args:
        model: of :func:`load`.
        image: an RGB array (H, W, 3) of uint8, or a PIL image, which is treated as one from a file: grey and palette
            become RGB, the colours become sRGB, the orientation of a camera is applied.
        quality: from 1 (smallest files) to 100, of a model of all rates; None: the model's default.
        refine: steps in which the latents are optimised for this image (:mod:`jointiq.coding.refine`), for fewer bits
            at equal quality; the same file where nothing is gained. Ctrl-C ends the steps early.

    Raises:
        jointiq.errors.ConfigError: a quality that the model does not have, or no number of steps.
        jointiq.errors.UserError: a model that cannot be refined.
        jointiq.errors.DataError: transparent, more than 8 bits a sample, too large, or not an image.
    """
    if isinstance(image, str | Path):
        raise DataError(f"{str(image)!r} is a path; allowed: an image, such as PIL.Image.open({str(image)!r})")
    model = model if quality is None else model.at(quality)
    array = to_array(image) if isinstance(image, Image.Image) else np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        shape = "x".join(map(str, array.shape))
        raise DataError(f"an array of {array.dtype}, {shape}, is no image; allowed: uint8, (height, width, 3)")
    if refine:
        return refine_image(model, array, refine).best.encoded.data
    return encode_image(model, array, estimate=False).data


def decode(data: bytes, model: LearnedCodec | None = None) -> Image.Image:
    """Decode the bytes of a ``.jiq`` file to a PIL image; ``numpy.asarray(picture)`` is (H, W, 3) uint8.

    Args:
        model: the model that encoded it; None: the one that comes with the package and has the fingerprint in the
            file. It is loaded on the CPU and kept for the next file.

    Raises:
        jointiq.errors.BitstreamError: the file is damaged, or was written by another model.
    """
    if isinstance(data, str | Path):
        raise DataError(f"{str(data)!r} is a path; allowed: bytes, such as pathlib.Path({str(data)!r}).read_bytes()")
    if isinstance(model, str | Path):
        raise DataError(f"{str(model)!r} is a name; allowed: a model, such as jointiq.load({str(model)!r})")
    data = bytes(data)
    return Image.fromarray(decode_image(_decoders.of(data) if model is None else model, data).image)
