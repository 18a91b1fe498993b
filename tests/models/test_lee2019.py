"""The hybrid model against hand calculation and the paper's definition of its contexts; Lee 2019's base model too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from jointiq.coding.export import read_export, write_export
from jointiq.coding.image_codec import decode_image, encode_image, same_latents, to_tensor
from jointiq.entropy_models.gaussian_mixture import log_mass, split_parameters
from jointiq.errors import ConfigError
from jointiq.layers.padding import pyramid
from jointiq.models import build_model
from jointiq.models.lee2019 import Lee2019Hybrid
from tests.models.hybrids import CONFIG, living_hybrid

BASE = {"name": "jointiq", "G": 1, "global_context": False, "mprm": False, "hyper_abs": True, "hyper_exp": True}
M1, M2 = CONFIG["M1"], CONFIG["M2"]


def parameters(model: torch.nn.Module, prefix: str = "") -> int:
    return sum(value.numel() for name, value in model.named_parameters() if name.startswith(prefix))


def transforms(N: int, M: int) -> int:
    """Balle 2018's structures: weights and biases of all layers, GDN with N^2 + N."""
    gdn = N * N + N
    g_a = (25 * 3 * N + N) + 2 * (25 * N * N + N) + (25 * N * M + M) + 3 * gdn
    g_s = (25 * M * N + N) + 2 * (25 * N * N + N) + (25 * N * 3 + 3) + 3 * gdn
    h_a = (9 * M * N + N) + 2 * (25 * N * N + N)
    h_s = 2 * (25 * N * N + N) + (9 * N * M + M)
    return g_a + g_s + h_a + h_s + N  # one sigma of z a channel


def estimator(M: int, gaussians: int = 1) -> int:
    """Two 4x4 windows to 2M, 2M to 2M, 2M to a mean and a scale (and a weight, where there are several Gaussians)."""
    outputs = 2 * M if gaussians == 1 else 3 * gaussians * M
    return (2 * 16 * M * 2 * M + 2 * M) + (2 * M * 2 * M + 2 * M) + (2 * M * outputs + outputs)


def test_parameters_of_the_base_model() -> None:
    # g_a 1,493,312, g_s 1,493,123, h_a 1,040,768, h_s 1,040,832, z 128; f 2,359,680 + 147,840 + 147,840.
    model = build_model({**BASE, "N": 128, "M": 192})
    assert parameters(model) == transforms(128, 192) + estimator(192) == 7_723_523
    wide = build_model({**BASE, "N": 4, "M": 6, "G": 3})
    assert parameters(wide) == transforms(4, 6) + estimator(6, 3)


def test_parameters_of_the_hybrid_model() -> None:
    # f is that of 192 channels, the transforms those of 192 + 228.
    model = build_model({"name": "lee2019_hybrid", "N": 320, "M1": 192, "M2": 228})
    assert parameters(model, "entropy_model.estimator.") == estimator(192)
    assert parameters(model) == transforms(320, 420) + estimator(192)


@pytest.mark.parametrize("size", [(1, 1), (17, 65), (50, 40)])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_shapes(size: tuple[int, int], training: bool) -> None:
    model = build_model(CONFIG).train(training)
    out = model(torch.rand(2, 3, *size))
    sizes = pyramid(size, 6)
    assert out["x_hat"].shape == (2, 3, *size)
    assert out["log_likelihoods"]["y"].shape == (2, M1 + M2, *sizes[4])
    assert out["log_likelihoods"]["z"].shape == (2, 8, *sizes[6])


def changed(model: Lee2019Hybrid, y: Tensor, z: Tensor, at: tuple[int, int], channels: slice) -> Tensor:
    """(M1 + M2, h, w): whose distributions move when y changes in ``channels`` at one position."""
    other = y.clone()
    other[0, channels, at[0], at[1]] += 7
    with torch.no_grad():
        before, after = (split_parameters(model.entropy_model.mixture_parameters(each, z), 1) for each in (y, other))
    moved = sum((one - two).abs().amax(1)[0] for one, two in zip(before, after, strict=True))
    return moved > 0


@pytest.mark.parametrize("scan", ["raster", "wavefront"])
def test_y1_sees_known_y1_alone_and_y2_sees_none(scan: str, picture) -> None:
    model = living_hybrid(scan=scan)
    latents = model.latents(to_tensor(picture(112, 128)))
    y, z = latents["y"], latents["z"]
    height, width = y.shape[-2:]
    order = torch.zeros(height, width, dtype=torch.long)
    for step, run in enumerate(model.entropy_model.scan.steps(height, width)):
        order[run.index()] = step
    for at in ((0, 0), (3, 4), (height - 1, width - 1)):
        first, second = changed(model, y, z, at, slice(0, M1)).split([M1, M2])
        assert not second.any()
        # The positions whose 4x4 windows (three rows up, two columns left, one right) hold it, and not itself.
        sees = torch.zeros(height, width, dtype=torch.bool)
        for row in range(height):
            for column in range(width):
                down, right = row - at[0], column - at[1]
                sees[row, column] = (1 <= down <= 3 and -1 <= right <= 2) or (down == 0 and 1 <= right <= 2)
        assert (first.any(0) == sees).all()
        assert (order[sees] > order[at]).all()
        assert not changed(model, y, z, at, slice(M1, None)).any()


def test_y2_has_zero_mean_and_the_scale_of_h_s(picture) -> None:
    for G in (1, 3):
        model = living_hybrid(G=G)
        latents = model.latents(to_tensor(picture(80, 64)))
        y, z = latents["y"], latents["z"]
        with torch.no_grad():
            log_sigma = model.entropy_model.h_s(z, (y.shape[-2], y.shape[-1]))[:, M1:]
            second = model.log_likelihoods(latents)["y"][:, M1:]
        expected = log_mass(y[:, M1:], torch.zeros(()), log_sigma.clamp(min=np.log(0.11)))
        torch.testing.assert_close(second, expected, rtol=1e-5, atol=1e-5)


def test_c_prime_is_the_exponential_of_the_first_channels(picture) -> None:
    model = living_hybrid()
    latents = model.latents(to_tensor(picture(80, 64)))
    y, z = latents["y"], latents["z"]
    with torch.no_grad():
        c_prime = model.entropy_model.h_s(z, (y.shape[-2], y.shape[-1]))[:, :M1].exp()
        _, means, log_sigmas = split_parameters(model.entropy_model.estimator(c_prime, y[:, :M1]), 1)
        got = split_parameters(model.entropy_model.mixture_parameters(y, z), 1)
    torch.testing.assert_close(got[1][:, :, :M1], means)
    torch.testing.assert_close(got[2][:, :, :M1], log_sigmas)


def test_every_parameter_gets_a_gradient(picture) -> None:
    model = living_hybrid().train()
    out = model(to_tensor(picture(96, 96)))
    (out["log_likelihoods"]["y"].sum() + out["log_likelihoods"]["z"].sum() + out["x_hat"].sum()).backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert missing == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"M1": 0}, "model.M1=0"),
        ({"M2": 0}, "model.M2=0"),
        ({"M2": 2.5}, "model.M2=2.5"),
        ({"N": 0}, "model.N=0"),
        ({"scan": "spiral"}, "raster, wavefront"),
        ({"conditions": "smooth"}, "rounded, noisy"),
        ({"M": 9}, "model.M=9 .*the keys of lee2019_hybrid"),
    ],
)
def test_values_that_are_not_allowed(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model({**CONFIG, **change})


def test_from_state_dict(picture) -> None:
    model = living_hybrid(scan="raster", G=2)
    again = Lee2019Hybrid.from_state_dict(model.state_dict()).eval()
    assert again.config == model.config == build_model(model.config).config
    x = to_tensor(picture(40, 40))
    assert again.compress(x)["strings"] == model.compress(x)["strings"]


@pytest.mark.parametrize("half", [False, True])
def test_an_export_codes_the_same_latents(picture, tmp_path, half: bool) -> None:
    model = living_hybrid(enhancer={"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4})
    write_export(model, tmp_path / "model.safetensors", half=half)
    again = read_export(tmp_path / "model.safetensors").eval()
    image = picture(45, 70)
    encoded, theirs = encode_image(model, image), encode_image(again, image)
    assert same_latents(encoded, decode_image(model, encoded.data))
    assert same_latents(theirs, decode_image(again, theirs.data))
    if not half:
        assert theirs.data == encoded.data
    assert theirs.estimated_bits["y"] == pytest.approx(encoded.estimated_bits["y"], rel=0.02 if half else 1e-3)
    again.update(force=True)
    assert encode_image(again, image).latents.keys() == theirs.latents.keys()
    for name, tensor in read_export(tmp_path / "model.safetensors").integer_tensors().items():
        assert torch.equal(tensor, again.integer_tensors()[name]), name
