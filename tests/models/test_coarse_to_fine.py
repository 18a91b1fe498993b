import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, encode_image, same_latents, to_image, to_tensor
from jointiq.coding.load import load_model
from jointiq.entropy_models.coarse_to_fine import PHASES
from jointiq.errors import BitstreamError, ConfigError
from jointiq.evaluation.complexity import parts_of
from jointiq.layers.padding import pyramid
from jointiq.models import build_model
from jointiq.models.base import LIKELIHOOD_FLOOR, bits
from jointiq.models.coarse_to_fine import CoarseToFine
from tests.models.coarse_models import CONFIG, busy_latents, make_busy

SIZES = [(1, 1), (1, 37), (33, 1), (17, 65), (50, 41)]
CHANNELS = {"y": 12, "h2": 8, "h1": 6}
LEVELS = {"y": 4, "h2": 5, "h1": 6}


def small(phase=4, **overrides):
    torch.manual_seed(0)
    return build_model({**CONFIG, "phase": phase, **overrides})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_forward(size, phase):
    x = torch.rand(2, 3, *size)
    names = {"y", "h2"} if phase == 1 else {"y", "h2", "h1"}
    for training in (False, True):
        out = small(phase).train(training)(x)
        assert ("auxiliary" in out) == (training and phase < 4)
        assert out["x_hat"].shape == out["x_mid"].shape == x.shape
        assert set(out["likelihoods"]) == set(out["log_likelihoods"]) == names
        for name in names:
            shape = (2, CHANNELS[name], *pyramid(size, 6)[LEVELS[name]])
            assert out["likelihoods"][name].shape == out["log_likelihoods"][name].shape == shape
            assert out["likelihoods"][name].min() >= LIKELIHOOD_FLOOR and out["likelihoods"][name].max() <= 1 + 1e-5


@pytest.mark.parametrize("phase", PHASES)
def test_every_parameter_gets_a_gradient(phase, picture):
    model = make_busy(phase).train()
    out = model(to_tensor(picture(96, 96)))
    rate = sum(bits(value) for value in out["log_likelihoods"].values())
    (rate + out["x_hat"].square().sum() + out.get("auxiliary", 0)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_noise_in_the_rate_of_a_training_only(picture):
    model, x = make_busy(), to_tensor(picture(48, 48))
    with torch.no_grad():
        once = model(x)
        model.train()
        noisy, other = model(x), model(x)
    for name in ("h1", "h2", "y"):
        assert not torch.equal(noisy["log_likelihoods"][name], other["log_likelihoods"][name])
    torch.testing.assert_close(noisy["x_hat"], once["x_hat"])


def test_helping_heads_count_squared_errors(picture):
    model, x = make_busy(2).train(), to_tensor(picture(64, 80))
    with torch.no_grad():
        for head in (model.head_y, model.head_h2):
            head.weight.zero_()
            head.bias.zero_()
        latents = model.analyse(x)
        expected = latents["y"].square().mean() + latents["h2"].square().mean()
        torch.testing.assert_close(model(x)["auxiliary"], expected)
        model.settings = replace(model.settings, helper_weight=0.25)
        torch.testing.assert_close(model(x)["auxiliary"], expected / 4)


def conv(inputs, outputs, kernel, layers=1):
    return layers * (kernel * kernel * inputs * outputs + outputs)


# Channels of the authors' two networks, layer by layer: their low-rate and their high-rate one.
AUTHORS = {
    192: {"h_a2": (384, 768), "h_s2": 768, "h_a1": (256, 128), "h_s1": 256, "up": 64, "last": 16},
    384: {"h_a2": (768, 1536), "h_s2": 1536, "h_a1": (512, 256), "h_s1": 512, "up": 128, "last": 32},
}


def hand_count(N):
    sizes = AUTHORS[N]
    gdns = 3 * (N * N + N)
    (wide2, width2), (wide1, width1) = sizes["h_a2"], sizes["h_a1"]
    up, last = sizes["up"], sizes["last"]
    return {
        "g_a": conv(3, N, 5) + conv(N, N, 5, 3) + gdns,
        "g_s": conv(N, N, 5, 3) + gdns,
        "h_a2": conv(N, wide2, 3) + conv(4 * wide2, width2, 1) + conv(width2, width2, 1) + conv(width2, 256, 1),
        "h_s2": conv(256, sizes["h_s2"], 1) + conv(sizes["h_s2"], sizes["h_s2"], 1, 2) + conv(sizes["h_s2"] // 4, N, 3),
        "predict_y": conv(N, N, 3, 3) + conv(9 * N, 2 * N, 1),
        "h_a1": conv(256, wide1, 3) + conv(4 * wide1, width1, 1) + conv(width1, width1, 1) + conv(width1, 128, 1),
        "h_s1": conv(128, sizes["h_s1"], 1) + conv(sizes["h_s1"], sizes["h_s1"], 1, 2)
        + conv(sizes["h_s1"] // 4, 256, 3),
        "predict_h2": conv(256, 256, 3, 3) + conv(9 * 256, 512, 1),
        "h1_prior": 128,
        "aggregation": conv(N + 64, N, 5) + conv(N, N, 5, 2)
        + conv(2 * N, N, 3) + conv(N, N, 3) + conv(N, 2 * N, 3)
        + conv(2 * N, up, 5) + conv(up, last, 3) + conv(last, 3, 1),
    }  # fmt: skip


@pytest.mark.parametrize("N", AUTHORS)
def test_parameters_are_those_of_the_authors_networks(N):
    model = build_model({"name": "coarse_to_fine", "N": N, "M": N})
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in parts_of(model).items()}
    assert counted == hand_count(N)
    assert sum(counted.values()) == sum(p.numel() for p in model.parameters())


def test_what_a_phase_does_not_use_is_not_there():
    parts = {phase: {name.partition(".")[0] for name in small(phase).weights()} for phase in PHASES}
    assert parts[2] - parts[1] == {"h_a1", "h_s1", "predict_h2", "h1_prior", "head_h2"}
    assert parts[1] - parts[2] == {"h2_prior"}
    assert parts[3] - parts[2] == {"aggregation"} and not parts[2] - parts[3]
    assert parts[3] - parts[4] == {"head_y", "head_h2"} and not parts[4] - parts[3]
    assert len(small(2).g_s.deconvs) == 4 and len(small(3).g_s.deconvs) == 3


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [(1, 1), (33, 50)])
def test_files_decode_to_what_was_coded(size, phase, picture):
    model, image = make_busy(phase), picture(*size)
    encoded = encode_image(model, image)
    decoded = decode_image(model, encoded.data)
    assert same_latents(encoded, decoded)
    assert tuple(encoded.latents) == (*model.side, "y")
    with torch.no_grad():
        assert np.array_equal(decoded.image, to_image(model(to_tensor(image))["x_hat"]))


@pytest.mark.parametrize("phase", [1, 4])
def test_real_bits_are_those_of_the_float_likelihoods(phase, picture):
    model = make_busy(phase)
    encoded = encode_image(model, picture(256, 320))
    for name, exact in encoded.integer_bits.items():
        assert exact == pytest.approx(encoded.estimated_bits[name], rel=5e-3), name
        assert exact > 300
    assert sum(encoded.integer_bits.values()) == pytest.approx(sum(encoded.estimated_bits.values()), rel=2e-3)
    # Two words of each segment hold the coder's state.
    total = 8 * encoded.payload_bytes - 64 * len(encoded.integer_bits)
    assert total == pytest.approx(sum(encoded.integer_bits.values()), rel=1e-3, abs=8 * 4 * 3)


def test_the_picture_reads_the_decoded_side_information():
    for phase, reads in ((2, False), (3, True)):
        model = make_busy(phase)
        latents = {name: latent[None].float() for name, latent in busy_latents(model).items()}
        with torch.no_grad():
            before, _ = model.reconstruct_from(latents, (96, 112))
            for name in ("h1", "h2"):
                after, _ = model.reconstruct_from({**latents, name: latents[name] + 1}, (96, 112))
                assert torch.equal(before, after) != reads
            # What an encoder would derive from y_hat is what it did derive.
            torch.testing.assert_close(model.reconstruct(latents["y"], (96, 112))[0], before)


@pytest.mark.parametrize("phase", [1, 4])
def test_contract_of_compressai(phase, picture):
    model = make_busy(phase)
    x = torch.cat([to_tensor(picture(40, 57, seed)) for seed in (1, 2)])
    coded = model.compress(x)
    assert tuple(coded["shape"]) == pyramid((40, 57), 6)[5 if phase == 1 else 6]
    with torch.no_grad():
        expected = model(x)["x_hat"].clamp(0, 1)
    torch.testing.assert_close(model.decompress(coded["strings"], coded["shape"])["x_hat"], expected, atol=1e-4, rtol=0)
    y_strings, side = coded["strings"]
    for bad in ([y_strings, [side[0][:4], side[1]]], [[y_strings[0][:8], y_strings[1]], side]):
        with pytest.raises(BitstreamError):
            model.decompress(bad, coded["shape"])


def test_a_file_of_another_order_is_refused(picture):
    model = make_busy()
    data = bytearray(encode_image(model, picture(20, 20)).data)
    data[8] = 0
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    with pytest.raises(BitstreamError, match="raster, the model's is parallel"):
        decode_image(model, bytes(data))


@pytest.mark.parametrize("phase", [1, 4])
@pytest.mark.parametrize("half", [False, True])
def test_export(half, phase, picture, tmp_path):
    model, image = make_busy(phase), picture(70, 61)
    identity = write_export(model, tmp_path / "m.safetensors", half=half)
    again = load_model(tmp_path / "m.safetensors")
    assert again.config == model.config and fingerprint(again) == identity
    assert (identity == fingerprint(model)) != half
    encoded = encode_image(again, image)
    decoded = decode_image(again, encoded.data)
    assert same_latents(encoded, decoded)
    for name, exact in encoded.integer_bits.items():
        assert exact == pytest.approx(encoded.estimated_bits[name], rel=5e-3)
    if not half:
        assert encoded.data == encode_image(model, image).data
        assert np.array_equal(decoded.image, decode_image(model, encoded.data).image)


def test_training_invalidates_the_integers():
    model = make_busy()
    latents = busy_latents(model)
    before = model.encode_latents(latents).y
    model.train()
    with torch.no_grad():
        model.entropy_model.predict_y.linear.bias += 0.3
    assert model.eval().encode_latents(latents).y != before


def test_from_state_dict_and_config():
    model = make_busy(2)
    again = CoarseToFine.from_state_dict(model.state_dict()).eval()
    assert again.config == model.config == build_model(model.config).config
    latents = busy_latents(model)
    assert again.encode_latents(latents).y == model.encode_latents(latents).y


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"N": 0}, "model.N=0"),
        ({"M": 2}, "model.M=2 .*from 3 up"),
        ({"h2": 6}, "model.h2=6 .*multiple of 4"),
        ({"h1": 1.5}, "model.h1=1.5"),
        ({"phase": 5}, "model.phase=5 .*1, 2, 3, 4"),
        ({"helper_weight": -1}, "model.helper_weight=-1"),
        ({"helper_weight": math.nan}, "model.helper_weight"),
        ({"scan": "raster"}, "scan"),
    ],
)
def test_values_that_are_not_allowed(change, message):
    with pytest.raises(ConfigError, match=message):
        small(**change)
