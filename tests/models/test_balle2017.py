import numpy as np
import pytest
import torch

from jointiq.bitstream.container import Container
from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, encode_image, same_latents, to_image, to_tensor
from jointiq.coding.load import load_model
from jointiq.errors import BitstreamError, ConfigError
from jointiq.interop.pth_tar import write_pth_tar
from jointiq.models import build_model

GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}


@pytest.fixture
def busy(picture):
    """``busy(seed=0, enhancer=None)``: a random model whose latents are not all zero, and a prior near to them."""

    def make(seed=0, enhancer=None):
        torch.manual_seed(seed)
        model = build_model({"name": "balle2017", "N": 12, "enhancer": enhancer}).eval()
        with torch.no_grad():
            # GDN at the end of g_a holds y down to about one; its beta is the square of what it divides by.
            gdn = model.g_a.gdns[-1]
            gdn.beta.mul_(0.02)
            gdn.gamma.mul_(0.02)
            model.entropy_model.prior.matrices[0].add_(1)
        y = model.latents(to_tensor(picture(96, 112)))["y"]
        assert (y.abs() > 1).float().mean() > 0.05
        return model

    return make


def test_parameters_counted_by_hand():
    N = 192
    transform = 9 * 9 * 3 * N + 2 * 5 * 5 * N * N
    gdn = N + N * N
    # Widths 1-3-3-3-3-1: matrices, biases, factors.
    density = N * ((3 + 9 + 9 + 9 + 3) + (4 * 3 + 1) + 4 * 3)
    expected = 2 * transform + 3 * N + (2 * N + 3) + 6 * gdn + density
    model = build_model({"name": "balle2017", "N": N})
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 70), (17, 65), (64, 64), (93, 101)])
def test_any_size(busy, picture, size):
    model, image = busy(enhancer=GRDN), picture(*size)
    encoded = encode_image(model, image)
    decoded = decode_image(model, encoded.data)
    assert same_latents(encoded, decoded)
    assert encoded.latents["y"].shape == (12, -(-size[0] // 16), -(-size[1] // 16))
    with torch.inference_mode():
        out = model(to_tensor(image))
    assert np.array_equal(decoded.image, to_image(out["x_hat"]))
    assert np.array_equal(decoded.x_mid, to_image(out["x_mid"]))
    assert set(encoded.estimated_bits) == set(encoded.integer_bits) == {"y"}
    container = Container.unpack(encoded.data)
    assert container.z == b"" and container.scan == 2


def test_the_edge_is_replicated_to_a_multiple_of_four(busy, picture):
    model = busy()
    x = to_tensor(picture(45, 62))
    padded = torch.nn.functional.pad(x, (0, 2, 0, 3), mode="replicate")
    with torch.inference_mode():
        assert torch.equal(model.analyse(x)["y"], model.analyse(padded)["y"])


def test_the_estimate_is_the_size(busy, picture):
    encoded = encode_image(busy(), picture(150, 180))
    assert encoded.integer_bits["y"] == pytest.approx(encoded.estimated_bits["y"], rel=0.002)
    assert 8 * encoded.payload_bytes == pytest.approx(encoded.integer_bits["y"], abs=100)


def test_training_adds_noise_for_rate_and_picture(busy, picture):
    """Two passes differ, in both; outside of training they do not."""
    model, x = busy(), to_tensor(picture(48, 48))
    with torch.no_grad():
        model.train()
        one, two = model(x), model(x)
        assert not torch.equal(one["x_mid"], two["x_mid"])
        assert not torch.equal(one["log_likelihoods"]["y"], two["log_likelihoods"]["y"])
        model.eval()
        assert torch.equal(model(x)["x_mid"], model(x)["x_mid"])


def test_every_parameter_learns(busy, picture):
    model = busy(enhancer=GRDN).train()
    out = model(to_tensor(picture(48, 48)))
    (out["x_hat"].square().mean() - out["log_likelihoods"]["y"].mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert not any(name.endswith("quantiles") for name, _ in model.named_parameters())


@pytest.mark.parametrize("half", [False, True])
def test_exports_keep_the_table(busy, picture, tmp_path, half):
    model, image = busy(), picture(70, 61)
    with torch.no_grad():
        # A table that the float density would not give again.
        model.integers.cdf[:, model.integers.cdf.shape[1] // 2] += 5
    model.derived.pop("fingerprint", None)
    identity = write_export(model, tmp_path / "m.safetensors", half=half)
    loaded = load_model(tmp_path / "m.safetensors")
    assert fingerprint(loaded) == identity and torch.equal(loaded.integers.cdf, model.integers.cdf)
    encoded = encode_image(loaded, image)
    assert same_latents(encoded, decode_image(loaded, encoded.data))
    estimate = encode_image(model, image).estimated_bits["y"]
    assert encoded.estimated_bits["y"] == pytest.approx(estimate, rel=0.02 if half else 1e-5)


def test_another_table_is_another_model(busy, picture):
    model = busy()
    data = encode_image(model, picture(40, 40)).data
    with torch.inference_mode():
        model.integers.cdf[3, 5:] += 1
    model.derived.pop("fingerprint", None)
    with pytest.raises(BitstreamError, match="was written by the model"):
        decode_image(model, data)


def test_checkpoints(busy, tmp_path):
    model = busy(enhancer=GRDN)
    assert write_pth_tar(model, tmp_path / "m.pth.tar") == fingerprint(model)
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_config": model.config, "state_dict": state}, tmp_path / "last.ckpt")
    assert fingerprint(load_model(tmp_path / "last.ckpt")) == fingerprint(model)


@pytest.mark.parametrize("N", [0, None, 2.5])
def test_values_that_are_not_allowed(N):
    with pytest.raises(ConfigError, match="model.N"):
        build_model({"name": "balle2017", "N": N})
