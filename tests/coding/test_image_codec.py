import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jointiq.bitstream.container import Container
from jointiq.bitstream.scan import MAX_POSITIONS
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import (
    decode_image,
    decode_latents,
    encode_image,
    latents_crc,
    to_image,
    to_tensor,
)
from jointiq.errors import BitstreamError, DataError

GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (40, 1), (17, 65), (64, 64), (125, 100)])
def test_decoded_picture_is_the_models_own(living, picture, size):
    model = living(enhancer=GRDN)
    image = picture(*size)
    encoded = encode_image(model, image)
    decoded = decode_image(model, encoded.data)
    assert torch.equal(decoded.latents["y"], encoded.latents["y"]) and torch.equal(
        decoded.latents["z"], encoded.latents["z"]
    )
    with torch.inference_mode():
        out = model(to_tensor(image))
    assert np.array_equal(decoded.image, to_image(out["x_hat"]))
    assert np.array_equal(decoded.x_mid, to_image(out["x_mid"]))
    assert not np.array_equal(decoded.image, decoded.x_mid) or size == (1, 1)
    assert decoded.image.shape == image.shape and decoded.image.dtype == np.uint8


CONTENTS = {
    "constant": lambda rng, h, w: np.full((h, w, 3), rng.integers(256)),
    "noise": lambda rng, h, w: rng.integers(0, 256, (h, w, 3)),
    "contrast": lambda rng, h, w: 255 * rng.integers(0, 2, (h, w, 3)),
    "stripes": lambda rng, h, w: np.broadcast_to(255 * (np.arange(w) % 2)[:, None], (h, w, 3)),
}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(sorted(CONTENTS)), st.integers(0, 1000))
def test_any_size_and_content(living, height, width, content, seed):
    model = living()
    image = CONTENTS[content](np.random.default_rng(seed), height, width).astype(np.uint8)
    encoded = encode_image(model, image, estimate=False)
    decoded = decode_image(model, encoded.data)
    assert torch.equal(decoded.latents["y"], encoded.latents["y"]) and decoded.image.shape == image.shape


@pytest.mark.slow
@pytest.mark.parametrize("size", [(500, 400), (512, 768)])
def test_photograph_sizes(living, picture, size):
    model = living()
    encoded = encode_image(model, picture(*size))
    assert torch.equal(decode_image(model, encoded.data).latents["y"], encoded.latents["y"])


def test_what_encoded_says_of_itself(living, picture):
    model = living()
    encoded = encode_image(model, picture(50, 60))
    container = Container.unpack(encoded.data)
    assert encoded.header_bytes + encoded.payload_bytes == len(encoded.data)
    assert encoded.header_bytes <= 24
    assert encoded.payload_bytes == len(container.z) + len(container.y)
    assert (container.height, container.width) == (50, 60)
    assert container.fingerprint == fingerprint(model)[:4]
    assert container.latents_crc == latents_crc(encoded.latents)
    assert encoded.seconds > 0 and set(encoded.estimated_bits) == {"y", "z"}
    assert encode_image(model, picture(50, 60), estimate=False).estimated_bits is None


def test_another_model_is_refused(living, picture):
    data = encode_image(living(), picture(30, 30)).data
    for other in (living(seed=1), living(scan="raster"), living(G=1)):
        with pytest.raises(BitstreamError, match="was written by the model"):
            decode_image(other, data)


def test_fingerprint_covers_what_a_decoder_uses(living):
    seen = {fingerprint(living())}
    for change in (
        lambda model: model.g_s.deconvs[3].bias[0].add_(0.01),
        lambda model: model.entropy_model.estimator.hidden.weight[0, 0].add_(0.5),
        lambda model: model.entropy_model.global_context.psi[0, 0, 0].add_(1),
        lambda model: model.entropy_model.z_prior.log_sigma[0].add_(0.1),
    ):
        model = living()
        with torch.no_grad():
            change(model)
        seen.add(fingerprint(model))
    assert len(seen) == 5
    model = living()
    with torch.no_grad():
        model.g_a.convs[0].bias += 1
    assert fingerprint(model) in seen


def repack(data, **changes):
    container = Container.unpack(data)
    return Container(**{**container.__dict__, **changes}).pack()


def test_headers_that_lie_with_a_correct_checksum(living, picture):
    model = living()
    data = encode_image(model, picture(50, 60)).data
    container = Container.unpack(data)
    for changes in (
        {"scan": 0},
        {"scan": 77},
        {"height": 66},
        {"width": 8000},
        {"height": 8192, "width": 8192},
        {"height": 1, "width": 16 * MAX_POSITIONS + 1},
        {"latents_crc": container.latents_crc ^ 1},
        {"z": container.y, "y": container.z},
        {"y": b""},
        {"z": b""},
        {"y": container.y[:-8]},
        {"y": container.y + bytes(8)},
        {"y": b"\xff" * 50_000},
    ):
        with pytest.raises(BitstreamError):
            decode_latents(model, repack(data, **changes))
    assert decode_latents(model, repack(data))[1] == (50, 60)


def test_too_large_an_image(living):
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (8193, 8192, 3))
    with pytest.raises(DataError, match="8192x8193"):
        encode_image(living(), huge)


@pytest.mark.parametrize("error", [None, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_is_not_there_is_told_in_a_line(living, picture, monkeypatch, error):
    def fails(*given):
        if error is None:
            return torch.empty(2**60)
        raise error

    model = living()
    data = encode_image(model, picture(20, 20)).data
    for name, call in (
        ("decode", lambda: decode_image(model, data)),
        ("encode", lambda: encode_image(model, picture(20, 20))),
    ):
        monkeypatch.setattr(model, name, fails)
        with pytest.raises(DataError, match="^not enough memory for an image of this size"):
            call()


def test_picture_from_other_threads_differs_by_one_level_at_most(living, picture):
    model = living(enhancer=GRDN)
    data = encode_image(model, picture(90, 77)).data
    one = decode_image(model, data)
    torch.set_num_threads(2)
    two = decode_image(model, data)
    assert torch.equal(one.latents["y"], two.latents["y"])
    difference = np.abs(one.image.astype(int) - two.image)
    assert difference.max() <= 1 and np.square(difference).mean() <= 255**2 / 10**6
