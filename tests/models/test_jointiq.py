import math
from dataclasses import replace

import pytest
import torch
from compressai.models import CompressionModel
from compressai.registry import MODELS

from jointiq.coding.image_codec import to_image, to_tensor
from jointiq.errors import BitstreamError, ConfigError, DataError, ModelError
from jointiq.layers.padding import pyramid
from jointiq.models import build_model
from jointiq.models.base import LIKELIHOOD_FLOOR, bits
from jointiq.models.jointiq import JointIQNet

SMALL = {"name": "jointiq", "N": 4, "M": 9}
GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
SIZES = [(1, 1), (1, 37), (33, 1), (17, 65), (50, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scan", ["wavefront", "quarters"])
@torch.no_grad()
def test_forward(size, training, scan):
    model = build_model({**SMALL, "scan": scan, "enhancer": GRDN}).train(training)
    x = torch.rand(2, 3, *size)
    out = model(x)
    assert set(out) == {"x_hat", "x_mid", "likelihoods", "log_likelihoods"}
    assert out["x_hat"].shape == out["x_mid"].shape == x.shape
    sizes = pyramid(size, 6)
    for key, channels, grid in (("y", 9, sizes[4]), ("z", 4, sizes[6])):
        assert out["likelihoods"][key].shape == out["log_likelihoods"][key].shape == (2, channels, *grid)
        assert out["likelihoods"][key].min() >= LIKELIHOOD_FLOOR and out["likelihoods"][key].max() <= 1 + 1e-5
    total = sum(float(bits(value)) for value in out["log_likelihoods"].values())
    floored = -sum(float(value.log().sum()) for value in out["likelihoods"].values()) / math.log(2)
    assert total == pytest.approx(floored, rel=1e-3)
    assert total > 0


def test_noise_in_training_only(living, picture):
    model = living()
    x = to_tensor(picture(48, 48))
    with torch.no_grad():
        once, again = model(x), model(x)
        assert torch.equal(once["log_likelihoods"]["y"], again["log_likelihoods"]["y"])
        model.train()
        noisy, other = model(x), model(x)
    assert not torch.equal(noisy["log_likelihoods"]["y"], other["log_likelihoods"]["y"])
    # Noise enters the rate alone: the picture is that of the rounded latents.
    torch.testing.assert_close(noisy["x_hat"], once["x_hat"])


def what_each_part_reads(model, x):
    """Inputs of the networks in one pass: g_s, h_a, h_s, the contexts of y, and y itself."""
    read = {}
    entropy = model.entropy_model
    parts = {"g_s": model.g_s, "h_a": entropy.h_a, "h_s": entropy.h_s, "context": entropy.estimator}
    handles = [
        part.register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[name == "context"]}))
        for name, part in parts.items()
    ]
    with torch.no_grad():
        out = model(x)
        read["y"] = model.g_a(2 * x - 1)
        read["z"] = model.entropy_model.h_a(read["h_a"])
    for handle in handles:
        handle.remove()
    return read, out


def test_rounded_conditions(living, picture):
    model = living(G=1, global_context=False, mprm=False, hyper_abs=True, hyper_exp=True).train()
    read, _ = what_each_part_reads(model, to_tensor(picture(96, 96)))
    y_hat = read["y"].round()
    assert torch.equal(read["g_s"], y_hat) and torch.equal(read["context"], y_hat)
    assert torch.equal(read["h_a"], y_hat.abs())
    assert torch.equal(read["h_s"], read["z"].round())


def test_noisy_conditions(living, picture):
    """Lee 2019, appendix 6.2: g_s(y~), h_s(z~), h_a(y), contexts from y~, which is also what the rate is of."""
    model = living(G=1, global_context=False, mprm=False, hyper_abs=True, hyper_exp=True)
    model.entropy_model.settings = replace(model.entropy_model.settings, conditions="noisy")
    x = to_tensor(picture(320, 320))
    read, out = what_each_part_reads(model.train(), x)
    assert torch.equal(read["h_a"], read["y"].abs())
    for name, latent in (("g_s", read["y"]), ("h_s", read["z"])):
        noise = read[name] - latent
        assert noise.abs().max() <= 0.5 and noise.std() == pytest.approx(12**-0.5, rel=0.1)
    assert torch.equal(read["context"], read["g_s"])
    rate = model.entropy_model.y_log_likelihood(read["g_s"], read["g_s"], read["h_s"])
    torch.testing.assert_close(out["log_likelihoods"]["y"], rate)
    # When coding, nothing is noisy.
    read, _ = what_each_part_reads(model.eval(), x)
    assert torch.equal(read["g_s"], read["y"].round()) and torch.equal(read["h_a"], read["y"].round().abs())


def test_conditions_are_no_part_of_a_trained_model():
    noisy = build_model({**SMALL, "conditions": "noisy"})
    assert noisy.entropy_model.settings.conditions == "noisy" and noisy.config == build_model(SMALL).config


@pytest.mark.parametrize("scan", ["wavefront", "quarters"])
def test_every_parameter_gets_a_gradient(picture, scan):
    torch.manual_seed(0)
    model = build_model({**SMALL, "scan": scan, "min_known": 4, "enhancer": GRDN}).train()
    out = model(to_tensor(picture(128, 128)))
    loss = sum(bits(value) for value in out["log_likelihoods"].values()) + out["x_hat"].square().sum()
    loss.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_z_of_the_rounded_y(living, picture):
    for hyper_abs in (False, True):
        model = living(hyper_abs=hyper_abs)
        with torch.no_grad():
            y, z = (model.analyse(to_tensor(picture(64, 64)))[name] for name in ("y", "z"))
            y_hat = y.round()
            torch.testing.assert_close(z, model.entropy_model.h_a(y_hat.abs() if hyper_abs else y_hat))


def test_what_is_switched_off_is_not_there():
    names = build_model({**SMALL, "global_context": False, "mprm": False}).weights()
    assert not any(name.startswith(("global_context", "enhancer", "estimator.mprm")) for name in names)
    full = build_model({**SMALL, "enhancer": GRDN}).weights()
    for part in ("global_context.psi", "estimator.mprm.", "enhancer."):
        assert any(name.startswith(part) for name in full)
    without_context = build_model({**SMALL, "global_context": False})
    assert without_context.entropy_model.global_context is None
    assert without_context.entropy_model.estimator.mprm.reduce[0].in_channels == 9 * 9
    assert (
        build_model({**SMALL, "G": 1, "global_context": False}).entropy_model.estimator.preliminary.out_channels
        == 2 * 9
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mprm": False}, "model.mprm=False.*reads the global context"),
        ({"G": 0}, "model.G=0"),
        ({"N": 0}, "model.N=0"),
        ({"M": -3}, "model.M=-3"),
        ({"M": 2.5}, "model.M=2.5"),
        ({"K": 1}, "model.K=1"),
        ({"min_known": 0}, "model.min_known=0"),
        ({"estimator_width": 0}, "model.estimator_width=0"),
        ({"scan": "spiral"}, "raster, wavefront"),
        ({"conditions": "smooth"}, "rounded, noisy"),
        ({"name": "resnet"}, "model.name='resnet'.*jointiq"),
        ({"colour": 3}, "colour"),
        ({"enhancer": {"name": "magic"}}, "enhancer.name"),
    ],
)
def test_values_that_are_not_allowed(change, message):
    with pytest.raises(ConfigError, match=message):
        build_model({**SMALL, **change})


def test_missing_size():
    with pytest.raises(ConfigError):
        build_model({"name": "jointiq", "N": 4})


def test_config_builds_the_same_model_again():
    model = build_model({**SMALL, "G": 2, "scan": "raster", "enhancer": GRDN})
    again = build_model(model.config)
    assert again.config == model.config
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


# --- the contract of CompressAI ---------------------------------------------------------------------------------------


def test_is_a_registered_compression_model():
    assert MODELS["jointiq"] is JointIQNet
    assert isinstance(build_model(SMALL), CompressionModel)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scan", ["wavefront", "quarters"])
def test_decompress_gives_the_reconstruction_of_forward(living, picture, size, scan):
    model = living(scan=scan)
    x = to_tensor(picture(*size))
    strings, shape = (coded := model.compress(x))["strings"], coded["shape"]
    assert [len(part) for part in strings] == [1, 1] and all(isinstance(part[0], bytes) for part in strings)
    assert tuple(shape) == pyramid(size, 6)[6]
    x_hat = model.decompress(strings, shape)["x_hat"]
    with torch.no_grad():
        expected = model(x)["x_hat"].clamp(0, 1)
    torch.testing.assert_close(x_hat, expected, atol=1e-5, rtol=0)
    assert x_hat.min() >= 0 and x_hat.max() <= 1


def test_batch(living, picture):
    model = living()
    x = torch.cat([to_tensor(picture(40, 56, seed)) for seed in (1, 2)])
    coded = model.compress(x)
    assert [len(part) for part in coded["strings"]] == [2, 2]
    x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    with torch.no_grad():
        torch.testing.assert_close(x_hat, model(x)["x_hat"].clamp(0, 1), atol=1e-4, rtol=0)


def test_wrong_shape_or_damaged_strings(living, picture):
    model = living()
    coded = model.compress(to_tensor(picture(40, 56)))
    with pytest.raises(BitstreamError, match="hold latents of size"):
        model.decompress(coded["strings"], (9, 9))
    y_strings, z_strings = coded["strings"]
    for bad in ([[y_strings[0][:8]], z_strings], [y_strings, [z_strings[0][:3]]], [y_strings, [b""]]):
        with pytest.raises(BitstreamError):
            model.decompress(bad, coded["shape"])


def test_update_says_whether_it_did_anything(living):
    model = living()
    assert model.update() is True
    assert model.update() is False
    assert model.update(force=True) is True


def test_training_invalidates_the_integers(living, latents):
    model = living()
    y_hat, z_hat = latents(model)
    before = model.integers.encode_y(y_hat, z_hat)
    model.train()
    with torch.no_grad():
        model.entropy_model.estimator.preliminary.bias += 0.3
    assert model.eval().integers.encode_y(y_hat, z_hat) != before


def test_from_state_dict(living, picture):
    model = living(G=2, scan="raster", K=3, hyper_abs=True)
    again = JointIQNet.from_state_dict(model.state_dict()).eval()
    assert again.config == model.config
    x = to_tensor(picture(40, 40))
    assert again.compress(x)["strings"] == model.compress(x)["strings"]


def test_a_state_of_another_order_is_refused():
    state = build_model({**SMALL, "scan": "raster"}).state_dict()
    with pytest.raises(ConfigError, match="model.scan"):
        build_model(SMALL).load_state_dict(state)


def test_aux_loss_is_zero_and_there_are_no_quantiles():
    model = build_model(SMALL)
    assert model.aux_loss().item() == 0 and model.aux_loss().shape == ()
    assert not any(name.endswith("quantiles") for name, _ in model.named_parameters())


def test_diverged_weights_are_a_clear_error(living, picture):
    model = living()
    with torch.no_grad():
        model.g_a.convs[0].weight[0] = float("nan")
    with pytest.raises(DataError, match="finite"):
        model.compress(to_tensor(picture(20, 20)))


@pytest.mark.parametrize(
    "name", ["h_s.conv.weight", "z_prior.log_sigma", "global_context.psi", "estimator.hidden.bias"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_entropy_model_that_is_not_finite_is_a_clear_error(name, value):
    model = build_model(SMALL).eval()
    with torch.no_grad():
        model.entropy_model.get_parameter(name)[0] = value
    with pytest.raises(ModelError, match="not finite"):
        model.update()


def test_strings_of_images_of_different_sizes_are_refused(living):
    model = living()
    coded = model.compress(torch.rand(2, 3, 70, 70))
    coded["strings"][1][0] = bytes([66]) + coded["strings"][1][0][1:]
    with pytest.raises(BitstreamError, match="different sizes"):
        model.decompress(**coded)


def test_to_image_clamps_and_rounds():
    x = torch.tensor([-1.0, 0.0, 0.5 / 255, 1.4 / 255, 1.0, 9.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_image(x)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]
