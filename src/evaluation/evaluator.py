"""Evaluate checkpoints on images by way of real files: encode to bytes, decode those bytes, compare pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from src.data.images import read_image
from src.errors import DataError
from src.evaluation.metrics import Image, ms_ssim, psnr
from src.evaluation.rd import ImageRow, RDCurve, curve_from_rows
from src.models.base import LearnedCodec
from src.models.checkpoint import load_model
from src.models.image_codec import Decoded, Encoded, decode_image, encode_image, same_latents


def measure(
    checkpoint: str, name: str, image: Image, encoded: Encoded, decoded: Decoded, picture: Image | None = None
) -> ImageRow:
    """Compare an original (uint8, (H, W, 3)) with what came back from its file.

    ``picture`` is the decoded picture to judge; default: the one in ``decoded``.
    """
    if encoded.estimated_bits is None:
        raise ValueError("the image was encoded without the likelihood estimate")
    picture = decoded.image if picture is None else picture
    height, width = image.shape[:2]
    pixels = height * width
    bpp_y = encoded.estimated_bits["y"] / pixels
    bpp_z = sum(bits for key, bits in encoded.estimated_bits.items() if key != "y") / pixels
    return ImageRow(
        checkpoint=checkpoint,
        image=name,
        width=width,
        height=height,
        bytes=len(encoded.data),
        bpp=8 * len(encoded.data) / pixels,
        bpp_payload=8 * encoded.payload_bytes / pixels,
        bpp_exact=None if encoded.exact_bits is None else sum(encoded.exact_bits.values()) / pixels,
        bpp_estimate=bpp_y + bpp_z,
        bpp_y=bpp_y,
        bpp_z=bpp_z,
        psnr=psnr(image, picture),
        psnr_mid=psnr(image, decoded.x_mid),
        ms_ssim=ms_ssim(image, picture),
        encoding_time=encoded.seconds,
        decoding_time=decoded.seconds,
        latents_equal=same_latents(encoded, decoded),
    )


def evaluate_image(model: LearnedCodec, checkpoint: str, path: Path) -> ImageRow:
    """Send one image file through ``model`` and a real bitstream."""
    image = read_image(path)
    encoded = encode_image(model, image)
    return measure(checkpoint, path.name, image, encoded, decode_image(model, encoded.data))


def evaluate_checkpoints(
    checkpoints: Sequence[str],
    images: Sequence[Path],
    name: str,
    description: str = "",
    device: torch.device | str = "cpu",
    advance: Callable[[ImageRow], object] = lambda row: None,
) -> RDCurve:
    """Evaluate each checkpoint on every image; one RD point per checkpoint.

    Args:
        checkpoints: training checkpoints or exported models.
        images: image files.
        name: the curve's name.
        description: kept in the RD file.
        device: where the networks run.
        advance: called with every finished row (a progress bar's tick).

    Raises:
        DataError: nothing to evaluate on, or an unreadable image.
        UserError: a checkpoint that cannot be opened.
    """
    if not images:
        raise DataError("no test images to evaluate on")
    points = []
    for checkpoint in checkpoints:
        model = load_model(checkpoint, device=device)
        rows = []
        for path in images:
            rows.append(evaluate_image(model, checkpoint, path))
            advance(rows[-1])
        points.append((checkpoint, rows))
    return curve_from_rows(name, points, description)
