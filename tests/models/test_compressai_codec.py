"""CompressAI's own models, trained, coded and stored as ours are."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from compressai.zoo.image import cfgs, model_architectures

from jointiq.bitstream.container import Container
from jointiq.bitstream.scan import scan_name
from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, encode_image, same_latents, to_image, to_tensor
from jointiq.coding.load import load_model
from jointiq.errors import BitstreamError, ConfigError, DataError, ModelError, UserError
from jointiq.models import build_model
from jointiq.models.compressai_codec import ARCHITECTURES
from jointiq.training.modules.compression import CompressionModule, EnhancementModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import constant

ROOT = Path(__file__).resolve().parents[2]
GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
PARALLEL = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean")


@pytest.fixture
def busy(picture):
    """``busy(arch, enhancer=None)``: a random model whose latents, and means if it has any, are not all zero."""

    def make(arch, seed=0, enhancer=None):
        torch.manual_seed(seed)
        size = {"N": 8, "M": 8 if "cheng" in arch else 12}
        model = build_model({"name": "compressai", "arch": arch, **size, "enhancer": enhancer}).eval()
        with torch.no_grad():
            y = model.analyse(to_tensor(picture(128, 160)))["y"]
            last = list(model.net.g_a)[-1]
            for parameter in last.parameters():
                parameter.mul_(3 / y.std())
            if model.side:
                # Scales and means of a few units.
                list(getattr(model.net, "entropy_parameters", model.net.h_s).parameters())[-1].uniform_(0.5, 3)
        return model

    return make


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_network_is_compressais(arch):
    theirs = model_architectures[arch](*((16,) if "cheng" in arch else (16, 24)))
    ours = build_model({"name": "compressai", "arch": arch, "N": 16, "M": 16 if "cheng" in arch else 24})
    assert type(ours.net) is type(theirs)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("experiment", ["balle2018", "minnen2018"])
def test_the_rate_points_have_the_sizes_of_the_zoo(experiment):
    rows = yaml.safe_load((ROOT / "conf" / "rates" / f"{experiment}.yaml").read_text())["table"]
    arch = yaml.safe_load((ROOT / "conf" / "model" / f"{experiment}.yaml").read_text())["arch"]
    assert [(row["N"], row["M"]) for row in rows] == [cfgs[arch][quality] for quality in range(1, 9)]


@pytest.mark.parametrize(
    ("arch", "size"), [*((arch, (70, 61)) for arch in ARCHITECTURES), *((arch, (1, 1)) for arch in PARALLEL)]
)
def test_round_trip(busy, picture, arch, size):
    model, image = busy(arch), picture(*size)
    encoded = encode_image(model, image)
    decoded = decode_image(model, encoded.data)
    assert same_latents(encoded, decoded) and list(encoded.latents) == [*model.side, "y"]
    assert (encoded.latents["y"] != 0).double().mean() > 0.3
    assert decoded.image.shape == image.shape and np.array_equal(decoded.image, decoded.x_mid)
    assert encoded.integer_bits is None and set(encoded.estimated_bits) == set(encoded.latents)
    scan = scan_name(Container.unpack(encoded.data).scan)
    assert scan == ("raster" if arch in ("mbt2018", "cheng2020-anchor", "cheng2020-attn") else "parallel")


@pytest.mark.parametrize("arch", PARALLEL)
def test_the_decoded_picture_is_that_of_forward(busy, picture, arch):
    model, image = busy(arch, enhancer=GRDN), picture(70, 61)
    decoded = decode_image(model, encode_image(model, image).data)
    with torch.inference_mode():
        out = model(to_tensor(image))
    assert np.array_equal(decoded.image, to_image(out["x_hat"]))
    assert np.array_equal(decoded.x_mid, to_image(out["x_mid"]))
    assert not np.array_equal(decoded.image, decoded.x_mid)


@pytest.mark.parametrize("arch", [*PARALLEL, "mbt2018"])
def test_the_strings_and_the_picture_are_compressais(busy, picture, arch):
    """And the estimate is that of what was coded."""
    model, image = busy(arch), picture(64, 128)
    encoded = encode_image(model, image)
    container = Container.unpack(encoded.data)
    x = to_tensor(image)
    with torch.inference_mode():
        coded = model.net.compress(x)
        assert [strings[0] for strings in coded["strings"]] == [container.y, *([container.z] if model.side else [])]
        theirs = model.net.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert np.array_equal(decode_image(model, encoded.data).image, to_image(theirs))
    assert 8 * encoded.payload_bytes == pytest.approx(sum(encoded.estimated_bits.values()), rel=0.15)


@pytest.mark.parametrize("arch", PARALLEL)
def test_latents_and_their_likelihoods_are_those_of_forward(busy, picture, arch):
    model, x = busy(arch), to_tensor(picture(70, 61))
    with torch.inference_mode():
        latents = model.latents(x)
        assert torch.equal(model.reconstruct(latents["y"], (70, 61))[1], model(x)["x_mid"])
        for name, value in model.log_likelihoods(latents).items():
            assert torch.allclose(value, model(x)["log_likelihoods"][name], atol=1e-3)


def test_compress_and_decompress(busy, picture):
    model, x = busy("mbt2018-mean"), torch.cat([to_tensor(picture(40, 70, seed)) for seed in (0, 1)])
    coded = model.compress(x)
    x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    with torch.inference_mode():
        assert torch.allclose(x_hat, model(x)["x_hat"].clamp(0, 1), atol=1e-4)


# --- damage -----------------------------------------------------------------------------------------------------------


def repack(data, **changes):
    container = Container.unpack(data)
    return Container(**{**container.__dict__, **changes}).pack()


@pytest.mark.parametrize("arch", [*PARALLEL, "mbt2018"])
def test_damaged_strings_are_errors(busy, picture, arch):
    """With all checksums of the file correct but that of the latents."""
    model = busy(arch)
    data = encode_image(model, picture(70, 61)).data
    container = Container.unpack(data)
    flipped = bytes([*container.y[:9], container.y[9] ^ 0x55, *container.y[10:]])
    for changes in (
        {"y": flipped},
        {"y": b""},
        {"y": b"\xff" * 4000},
        {"z": b"\xff" * 4000},
        {"z": bytes(len(container.z)) or b"\0"},
        {"height": 65 + 64},
        {"latents_crc": container.latents_crc ^ 1},
    ):
        with pytest.raises(BitstreamError):
            decode_image(model, repack(data, **changes))


def test_another_setting_is_an_error_that_says_so(busy, picture, monkeypatch):
    """A decoder whose floats come out a little different."""
    model = busy("mbt2018-mean")
    data = encode_image(model, picture(70, 61)).data
    h_s = model.net.h_s.forward
    monkeypatch.setattr(model.net.h_s, "forward", lambda z_hat: h_s(z_hat) * 1.05)
    with pytest.raises(BitstreamError, match="with another device"):
        decode_image(model, data)


@pytest.mark.parametrize("arch", ["bmshj2018-hyperprior", "mbt2018"])
def test_latents_that_are_not_finite(busy, picture, arch):
    model = busy(arch)
    image = picture(40, 40)
    with torch.no_grad():
        next(model.net.g_a.parameters()).fill_(torch.inf)
    with pytest.raises(ModelError, match="not finite"):
        encode_image(model, image)
    model = busy(arch)
    fingerprint(model)
    with torch.no_grad():
        list(model.net.g_a.parameters())[-1].fill_(1e30)
    with pytest.raises(DataError, match="no finite latents"):
        encode_image(model, image)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("arch", ["bmshj2018-factorized", "mbt2018"])
def test_exports_keep_the_tables(busy, picture, tmp_path, arch, half):
    model, image = busy(arch, enhancer=GRDN), picture(40, 70)
    identity = write_export(model, tmp_path / "m.safetensors", half=half)
    loaded = load_model(tmp_path / "m.safetensors")
    assert fingerprint(loaded) == identity and (identity == fingerprint(model)) == (not half)
    assert torch.equal(loaded.net.entropy_bottleneck.quantized_cdf, model.net.entropy_bottleneck.quantized_cdf)
    encoded = encode_image(loaded, image)
    assert same_latents(encoded, decode_image(load_model(tmp_path / "m.safetensors"), encoded.data))


def test_checkpoints_load_before_and_after_update(busy, tmp_path):
    """Through Lightning's module too, which passes load_state_dict of the network by."""
    fresh, updated = busy("mbt2018"), busy("mbt2018", seed=1)
    assert updated.update() and not updated.update()
    for source in (fresh, updated):
        state = {f"net.{name}": value for name, value in source.state_dict().items()}
        torch.save({"model_config": source.config, "state_dict": state}, tmp_path / "last.ckpt")
        assert fingerprint(load_model(tmp_path / "last.ckpt")) == fingerprint(source)
        for target in (busy("mbt2018", seed=2), busy("mbt2018", seed=3)):
            target.update()
            module = CompressionModule(target, RateDistortionLoss(0.1), constant(), lr=1e-4)
            module.load_state_dict(state)
            assert fingerprint(target) == fingerprint(source)


def test_training_drops_the_tables(busy, picture):
    model = busy("bmshj2018-hyperprior")
    before = fingerprint(model)
    model.train()
    with torch.no_grad():
        model.net.entropy_bottleneck.quantiles[:, 0, 1] += 0.3
    assert model.net.entropy_bottleneck.offset.numel() == 0
    model.eval()
    assert fingerprint(model) != before
    encoded = encode_image(model, picture(40, 40))
    assert same_latents(encoded, decode_image(model, encoded.data))


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [*PARALLEL, "mbt2018"])
def test_every_parameter_learns(busy, picture, arch):
    model = busy(arch, enhancer=GRDN).train()
    module = CompressionModule(model, RateDistortionLoss(0.1), constant(), lr=1e-4)
    x = to_tensor(picture(64, 64))
    loss, _, rates = module.training_loss(x, x, None)
    loss.backward()
    assert rates["bpp"] > 0 and all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [p is model.net.entropy_bottleneck.quantiles for p in groups[1]["params"]] == [True]


def test_the_enhancer_alone(busy, picture):
    model = busy("bmshj2018-hyperprior", enhancer=GRDN)
    module = EnhancementModule(model, RateDistortionLoss(0.1), constant(), lr=1e-4)
    x = to_tensor(picture(64, 64))
    loss, x_hat, _ = module.training_loss(x, x, None)
    loss.backward()
    assert x_hat.shape == (1, 3, 64, 64) and module.net.net.g_s[0].weight.grad is None


def test_autocast_leaves_the_network_alone(busy, picture):
    model, x = busy("mbt2018-mean"), to_tensor(picture(64, 64))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    with torch.no_grad():
        assert torch.equal(out["log_likelihoods"]["y"], model(x)["log_likelihoods"]["y"])


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "mbt2019"}, "model.arch='mbt2019'.*mbt2018-mean"),
        ({"N": 1}, "model.N=1"),
        ({"M": None}, "model.M=None"),
        ({"arch": "cheng2020-attn", "M": 9}, "model.M=9.*8, as model.N"),
    ],
)
def test_values_that_are_not_allowed(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_model({"name": "compressai", "arch": "mbt2018", "N": 8, "M": 12, **changes})


def test_the_state_of_another_architecture(busy):
    with pytest.raises((UserError, RuntimeError)):
        busy("mbt2018-mean").load_state_dict(busy("bmshj2018-hyperprior").state_dict())
