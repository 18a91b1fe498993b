"""One model for all rates: views at a quality, files that say theirs, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from jointiq.coding.export import read_export, write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, encode_image, same_latents, to_tensor
from jointiq.errors import BitstreamError, ConfigError
from jointiq.models import build_model
from jointiq.models.jointiq import JointIQNet
from jointiq.training.start.initialise import initialise

QUALITIES = (1, 33.3, 100)


@pytest.fixture(scope="module", params=["quarters", "wavefront"])
def model(request, living):
    """A model of all rates whose prior of z changes with the quality."""
    made = living(rates="continuous", levels=5, scan=request.param)
    with torch.no_grad():
        made.entropy_model.z_prior.log_sigma.add_(torch.linspace(-0.5, 0.5, 5)[:, None])
        made.gain_s.features.log_gain.normal_(0, 0.1)
    made.update(force=True)
    return made


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("size", [(1, 1), (17, 65), (96, 112)])
def test_a_file_of_any_quality_comes_back(model, picture, quality, size):
    image = picture(*size)
    encoded = encode_image(model.at(quality), image)
    decoded = decode_image(model, encoded.data)  # the file says at which quality
    assert same_latents(encoded, decoded)
    with torch.inference_mode():
        own = model.at(quality)(to_tensor(image))["x_hat"]
    assert np.abs(decoded.image.astype(float) - own[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).max() <= 0.51
    bits, estimate = sum(encoded.integer_bits.values()), sum(encoded.estimated_bits.values())
    # At the highest, this model's latents lie in tails, where the coder's escape costs less than the float likelihood.
    assert quality == 100 or bits == pytest.approx(estimate, rel=0.01, abs=4)


def test_larger_files_of_better_pictures(model, picture):
    image = picture(96, 112)
    sizes = [len(encode_image(model.at(quality), image).data) for quality in (1, 25, 50, 75, 100)]
    assert sizes == sorted(sizes) and sizes[-1] > 1.5 * sizes[0]


def test_the_contract_of_compressai(model, picture):
    x = torch.cat([to_tensor(picture(50, 77, seed)) for seed in (0, 1)])
    default, other = model.compress(x), model.compress(x, quality=90)
    assert sum(map(len, other["strings"][0])) > sum(map(len, default["strings"][0]))
    for coded, quality in ((default, model.quality), (other, 90)):
        with torch.inference_mode():
            expected = model.at(quality)(x)["x_hat"].clamp(0, 1)
        x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
        assert torch.allclose(x_hat, expected, atol=1e-5)
    again = JointIQNet.from_state_dict(model.state_dict())
    assert again.config == model.config and fingerprint(again) == fingerprint(model)


def test_views_share_weights_and_what_is_derived_from_them(model):
    view = model.at(70)
    assert view.quality == 70 and model.quality == 50
    assert view.g_a is model.g_a and view.integers is model.integers
    assert fingerprint(view) is fingerprint(model)
    changed = JointIQNet.from_state_dict(model.state_dict())
    view, before = changed.at(70), fingerprint(changed)
    with torch.no_grad():
        changed.gain_s.y.log_gain.add_(0.1)
    changed.forget()
    assert fingerprint(view) == fingerprint(changed) != before


def test_gains_of_the_decoder_make_the_model_those_of_the_encoder_do_not(model):
    other = JointIQNet.from_state_dict(model.state_dict())
    with torch.no_grad():
        other.gain_a.y.log_gain.add_(0.1)
    other.forget()
    assert fingerprint(other) == fingerprint(model)


def test_an_export_is_the_same_model(model, tmp_path, picture):
    path = tmp_path / "model.safetensors"
    assert write_export(model, path) == fingerprint(model)
    data = encode_image(model.at(62.5), picture(40, 60)).data
    assert np.array_equal(decode_image(read_export(path), data).image, decode_image(model, data).image)


@pytest.mark.slow
def test_another_process_with_another_thread_count(model, tmp_path, picture):
    path, file = tmp_path / "model.safetensors", tmp_path / "a.jiq"
    write_export(model, path)
    torch.set_num_threads(2)
    encoded = encode_image(read_export(path).at(77.7), picture(90, 141))
    file.write_bytes(encoded.data)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from jointiq.coding.export import read_export\n"
        "from jointiq.coding.image_codec import decode_latents, latents_crc\n"
        "latents, _ = decode_latents(read_export(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes())\n"
        "print(latents['y'].abs().sum().item(), latents['z'].abs().sum().item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path, file], capture_output=True, text=True, check=True)
    expected = [encoded.latents[name].abs().sum().item() for name in ("y", "z")]
    assert done.stdout.split() == [str(value) for value in expected]


def test_training_draws_a_quality_for_every_image(model):
    net = build_model(model.config).train()
    net.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    x = torch.rand(6, 3, 64, 64)
    first, second = net(x)["quality"], net(x)["quality"]
    assert first.shape == (6,) and len(set([*first.tolist(), *second.tolist()])) == 12
    # One in each sixth of the range, in any order.
    for drawn in (first, second):
        assert ((drawn.sort().values - 1) / 16.5).floor().tolist() == [0, 1, 2, 3, 4, 5]
    assert not first.equal(first.sort().values)
    output = net(x)
    (output["x_hat"].square().mean() - sum(value.mean() for value in output["log_likelihoods"].values())).backward()
    for name, parameter in net.named_parameters():
        if "gain" in name or "z_prior" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert net.eval()(x)["quality"].tolist() == [50.0] * 6


@pytest.mark.parametrize("quality", [0, 0.9, 100.1, -3, True, "90", None, float("nan")])
def test_there_is_no_such_quality(model, quality):
    with pytest.raises(ConfigError, match="quality"):
        model.at(quality)


def test_models_of_one_rate_have_none(living, model, picture):
    one = living()
    assert one.quality is None and "rates" not in one.config and "levels" not in one.config
    with pytest.raises(ConfigError, match="this model has one rate"):
        one.at(50)
    with pytest.raises(ConfigError):
        one.compress(to_tensor(picture(20, 20)), quality=50)
    coded = model.compress(to_tensor(picture(20, 20)))
    damaged = [bytes([20, 20, 5]) + coded["strings"][1][0][4:]]
    with pytest.raises(BitstreamError, match=r"quality 0\.5"):
        model.decompress([coded["strings"][0], damaged], coded["shape"])


def test_entropy_models_that_have_one_rate():
    with pytest.raises(ConfigError, match=r"model\.rates"):
        build_model({"name": "jointiq", "N": 8, "M": 8, "rates": "continuous", "entropy_model": "factorized"})


def test_a_model_of_one_rate_is_a_start(living, tmp_path, picture):
    """In the middle of the range, where the gains are 1, it codes as the model that it starts from."""
    path = tmp_path / "one.safetensors"
    write_export(living(scan="wavefront"), path)
    for takes, scan in (("model", "wavefront"), ("shared", "quarters"), ("trunk", "quarters")):
        net = build_model({**living(scan=scan).config, "rates": "continuous"}).eval()
        said = initialise(net, str(path), takes)
        assert "taken" in said
        y = read_export(path).analyse(to_tensor(picture(40, 60)))["y"]
        assert torch.allclose(net.at(50.5).analyse(to_tensor(picture(40, 60)))["y"], y, atol=1e-3)
        if takes != "trunk":
            assert (net.entropy_model.z_prior.log_sigma == read_export(path).entropy_model.z_prior.log_sigma).all()
