"""One image by way of a real file: encode to bytes, decode those bytes, compare pictures."""

from __future__ import annotations

from jointiq.coding.image_codec import Decoded, Encoded, decode_image, encode_image, same_latents
from jointiq.evaluation.metrics import Image, ms_ssim, psnr
from jointiq.evaluation.rd import ImageRow
from jointiq.models.base import LearnedCodec


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


def evaluate_image(model: LearnedCodec, checkpoint: str, name: str, image: Image) -> tuple[ImageRow, Decoded]:
    """Send one image (uint8, (H, W, 3)) through ``model`` and a real file; ``checkpoint``, ``name`` label the row."""
    encoded = encode_image(model, image)
    decoded = decode_image(model, encoded.data)
    return measure(checkpoint, name, image, encoded, decoded), decoded
