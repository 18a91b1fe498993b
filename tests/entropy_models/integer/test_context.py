"""The exact entropy model: the decoder gets the encoder's integers in any setting, and the bits are those estimated."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jointiq.bitstream import scan as scan_module
from jointiq.bitstream.container import Container
from jointiq.coding.export import write_export
from jointiq.coding.image_codec import encode_image
from jointiq.entropy_models.integer.context import ContextState, IntegerContextModel
from jointiq.entropy_models.integer.recorder import LATENT_MAX
from jointiq.errors import BitstreamError, UserError
from jointiq.models.base import bits
from tests.layers.definitions import quarter_step
from tests.marks import slow_but

ROOT = Path(__file__).parents[3]
VARIANTS = {
    "full": {},
    "raster": {"scan": "raster"},
    "single Gaussian": {"G": 1},
    "no global context": {"global_context": False},
    "no global context, no MPRM": {"global_context": False, "mprm": False},
    "raster, no global context, no MPRM": {"global_context": False, "mprm": False, "scan": "raster"},
    "hyper_abs": {"hyper_abs": True, "G": 1},
    "hyper_exp": {"hyper_exp": True},
    "small K, other widths": {"K": 2, "estimator_width": 1, "mprm_width": 3},
    "K beyond the grid": {"K": 12},
    "quarters": {"scan": "quarters"},
    "quarters, single Gaussian, small K": {"scan": "quarters", "G": 1, "K": 2, "hyper_abs": True},
    "quarters, no global context": {"scan": "quarters", "global_context": False},
    "quarters, no global context, no MPRM": {"scan": "quarters", "G": 2, "global_context": False, "mprm": False},
}
#: Of the other variants, `make test` compares files with their estimate at smaller sizes only.
USUAL = ("full", "raster", "single Gaussian", "quarters")
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def code(exact, y_hat, z_hat):
    return exact.encode_z(z_hat), exact.encode_y(y_hat, z_hat)


@variants
@pytest.mark.parametrize("size", [(1, 1), (49, 81)])
def test_round_trip_with_any_thread_count(living, latents, variant, size):
    model = living(**variant)
    y_hat, z_hat = latents(model, *size)
    coded = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        coded[threads] = code(model.integers, y_hat, z_hat)
    assert coded[1] == coded[2]
    z, y = coded[1]
    for threads in (2, 1):
        torch.set_num_threads(threads)
        assert torch.equal(model.integers.decode_z(z, z_hat.shape[1:]), z_hat)
        assert torch.equal(model.integers.decode_y(y, z_hat, y_hat.shape[1:]), y_hat)


@pytest.mark.parametrize("content", ["zero", "huge", "random"])
@pytest.mark.parametrize("scan", ["raster", "wavefront", "quarters"])
def test_any_latents(living, content, scan):
    model = living(scan=scan)
    generator = torch.Generator().manual_seed(1)
    y_hat = torch.randint(-9, 10, (10, 5, 7), generator=generator)
    z_hat = torch.randint(-9, 10, (8, 2, 2), generator=generator)
    if content == "zero":
        y_hat, z_hat = torch.zeros_like(y_hat), torch.zeros_like(z_hat)
    if content == "huge":
        y_hat = y_hat * 1000
        y_hat[0, 0, 0], y_hat[3, 2, 1] = LATENT_MAX, -LATENT_MAX
        z_hat[1, 0, 0] = -70_000
        assert (y_hat.abs() > 5000).float().mean() > 0.3
    z, y = code(model.integers, y_hat, z_hat)
    assert torch.equal(model.integers.decode_z(z, (2, 2)), z_hat)
    assert torch.equal(model.integers.decode_y(y, z_hat, (5, 7)), y_hat)


def test_beyond_the_range_of_latents_is_refused(living):
    model = living()
    y_hat = torch.full((10, 1, 1), LATENT_MAX + 1)
    with pytest.raises(UserError, match="beyond"):
        model.integers.encode_y(y_hat, torch.zeros(8, 1, 1))


def changed_bits(model, y_hat, z_hat, change):
    before = model.integers.encode_y(y_hat, z_hat)
    with torch.no_grad():
        change(model)
    model.update(force=True)
    return model.integers.encode_y(y_hat, z_hat) != before


def test_every_part_has_a_say_in_the_bits(living, latents):
    y_hat, z_hat = latents(living())
    model = living()
    before = model.integers.encode_y(y_hat, z_hat)
    other = z_hat.clone()
    other[0, 0, 0] += 1
    assert model.integers.encode_y(y_hat, other) != before
    assert not changed_bits(living(), y_hat, z_hat, lambda model: None)
    assert changed_bits(living(), y_hat, z_hat, lambda model: model.entropy_model.global_context.psi[:, 0, 6].add_(1))
    assert changed_bits(
        living(), y_hat, z_hat, lambda model: model.entropy_model.estimator.hidden.weight[0, 0].add_(0.3)
    )
    assert changed_bits(
        living(), y_hat, z_hat, lambda model: model.entropy_model.h_s.deconvs[0].weight[0, 0, 2, 2].add_(0.3)
    )
    assert changed_bits(
        living(), y_hat, z_hat, lambda model: model.entropy_model.estimator.mprm.expand[1].bias[0].add_(0.3)
    )
    model = living()
    z = model.integers.encode_z(z_hat)
    with torch.no_grad():
        model.entropy_model.z_prior.log_sigma[0] += 0.5
    model.update(force=True)
    assert model.integers.encode_z(z_hat) != z


@pytest.mark.parametrize("name", slow_but(USUAL, VARIANTS))
def test_real_bits_are_those_of_the_float_likelihood(living, latents, name):
    """Within 0.2 %, beside the state of the coder (31 to 64 bits); a busy latent of 36x36 positions."""
    model = living(**VARIANTS[name])
    y_hat, z_hat = latents(model, 576, 576)
    with torch.inference_mode():
        estimate = {
            key: float(bits(value))
            for key, value in model.log_likelihoods({"y": y_hat[None].float(), "z": z_hat[None].float()}).items()
        }
    z, y = code(model.integers, y_hat, z_hat)
    assert estimate["y"] > 20_000
    assert 8 * len(y) - 48 == pytest.approx(estimate["y"], rel=0.002, abs=17)
    assert 8 * len(z) - 48 == pytest.approx(estimate["z"], rel=0.005, abs=24)


@variants
def test_file_against_estimate(living, picture, variant):
    for size in ((1, 1), (40, 200), (128, 176)):
        encoded = encode_image(living(**variant), picture(*size))
        estimate = sum(encoded.estimated_bits.values())
        assert abs(8 * len(encoded.data) - estimate) <= 0.01 * estimate + 8 * 64


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (17, 1), (16, 32), (33, 16), (48, 80), (49, 81), (200, 40)])
def test_quarters_at_every_parity_of_the_grid(living, latents, size):
    model = living(scan="quarters")
    y_hat, z_hat = latents(model, *size)
    z, y = code(model.integers, y_hat, z_hat)
    assert torch.equal(model.integers.decode_z(z, z_hat.shape[1:]), z_hat)
    assert torch.equal(model.integers.decode_y(y, z_hat, y_hat.shape[1:]), y_hat)


def test_quarters_in_several_sets_a_step(living, monkeypatch):
    """Sets of a step bound the memory; what they know is the same however small they are."""
    model = living(scan="quarters")
    generator = torch.Generator().manual_seed(2)
    y_hat = torch.randint(-9, 10, (10, 9, 13), generator=generator)
    z_hat = torch.randint(-3, 4, (8, 3, 4), generator=generator)
    whole = model.integers.record_y(y_hat, z_hat).bits()
    monkeypatch.setattr(scan_module, "SET_BLOCKS", 14)
    data = model.integers.encode_y(y_hat, z_hat)
    assert torch.equal(model.integers.decode_y(data, z_hat, (9, 13)), y_hat)
    assert model.integers.record_y(y_hat, z_hat).bits() == pytest.approx(whole, rel=1e-9)


def test_in_quarters_a_later_symbol_changes_no_earlier_probability(living, latents):
    model = living(scan="quarters")
    y_hat, z_hat = latents(model)

    def parameters(values):
        state = ContextState(model.integers, model.integers._hyper(z_hat, values.shape[1:]))
        grid, found = values.permute(1, 2, 0), {}
        for step in model.integers.scan.steps(*values.shape[1:]):
            mixture = state.distribution(step)
            found[step] = torch.stack([mixture.means, mixture.inverse_sigmas, mixture.weights])
            state.write(step, step.take(grid))
        return found

    before = parameters(y_hat)
    for row, column, channel in ((2, 2, 1), (3, 3, 4), (2, 3, 9), (3, 2, 6)):
        changed = y_hat.clone()
        changed[channel, row, column] += 40
        after = parameters(changed)
        moved = {step.number for step in before if not torch.equal(before[step], after[step])}
        assert moved == set(range(quarter_step(row, column, channel) + 1, 8))


def test_batches_are_coded_image_by_image(living, latents):
    model = living()
    first, second = latents(model, seed=1), latents(model, seed=2)
    pair = [{"z": z_hat[None].float(), "y": y_hat[None].float()} for y_hat, z_hat in (first, second)]
    model.latents = lambda x: pair.pop(0)
    (y_strings, z_strings), shape = model.compress(torch.rand(2, 3, 96, 112)).values()
    for index, (y_hat, z_hat) in enumerate((first, second)):
        z, y = code(model.integers, y_hat, z_hat)
        assert y_strings[index] == y
        assert z_strings[index].endswith(z)
    assert y_strings[0] != y_strings[1]


def test_stored_integers_give_the_same_model(living, latents):
    model = living()
    stored = {name: tensor.clone() for name, tensor in model.integers.tensors().items()}
    again = IntegerContextModel(stored, *(model.config[key] for key in ("G", "scan", "hyper_exp", "K", "min_known")))
    y_hat, z_hat = latents(model)
    assert code(again, y_hat, z_hat) == code(model.integers, y_hat, z_hat)
    assert {tensor.dtype for tensor in stored.values()} == {torch.int16, torch.int64, torch.uint8, torch.int32}


def test_damaged_segments_never_give_an_image_of_the_right_latents(living, latents):
    model = living()
    y_hat, z_hat = latents(model)
    _, y = code(model.integers, y_hat, z_hat)
    wrong = 0
    for position in range(0, len(y), 31):
        damaged = bytearray(y)
        damaged[position] ^= 0x10
        try:
            wrong += not torch.equal(model.integers.decode_y(bytes(damaged), z_hat, y_hat.shape[1:]), y_hat)
        except BitstreamError:
            wrong += 1
    assert wrong == len(range(0, len(y), 31))
    for length in (0, 4, len(y) // 8 * 4, len(y) - 8):
        with pytest.raises(BitstreamError):
            model.integers.decode_y(y[:length], z_hat, y_hat.shape[1:])


def test_few_bytes_for_a_huge_image_fail_before_any_work(living):
    exact = living().integers
    with pytest.raises(BitstreamError):
        exact.decode_z(bytes(12), (128, 128))
    with pytest.raises(BitstreamError):
        exact.decode_y(bytes(12), torch.zeros(8, 128, 128), (512, 512))


def test_more_positions_than_the_integers_allow(living):
    with pytest.raises(UserError, match="262144"):
        living().integers.decode_y(bytes(1 << 20), torch.zeros(8, 1, 1), (1, (1 << 18) + 1))


DECODE = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[3]))
from jointiq.coding.load import load_model
from jointiq.coding.image_codec import decode_latents
with open(sys.argv[2], "rb") as file:
    latents, size = decode_latents(load_model(sys.argv[1]), file.read())
print(hashlib.sha256(latents["y"].numpy().tobytes() + latents["z"].numpy().tobytes()).hexdigest(), *size)
"""


@pytest.mark.slow
def test_another_process_with_another_thread_count(living, picture, tmp_path):
    model = living()
    torch.set_num_threads(2)
    encoded = encode_image(model, picture(61, 83))
    write_export(model, tmp_path / "model.safetensors")
    (tmp_path / "image.jiq").write_bytes(encoded.data)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        DECODE,
        tmp_path / "model.safetensors",
        tmp_path / "image.jiq",
        "1",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    digest = hashlib.sha256(encoded.latents["y"].numpy().tobytes() + encoded.latents["z"].numpy().tobytes()).hexdigest()
    assert result.stdout.split() == [digest, "61", "83"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@variants
def test_cpu_and_gpu_read_each_other(living, latents, variant):
    model = living(**variant)
    y_hat, z_hat = latents(model, 160, 208)
    exact = {"cpu": model.integers, "cuda": model.integers.to("cuda")}
    coded = {device: code(entropy, y_hat, z_hat) for device, entropy in exact.items()}
    assert coded["cpu"] == coded["cuda"]
    z, y = coded["cpu"]
    for entropy in exact.values():
        assert torch.equal(entropy.decode_z(z, z_hat.shape[1:]).cpu(), z_hat)
        assert torch.equal(entropy.decode_y(y, z_hat, y_hat.shape[1:]).cpu(), y_hat)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_images_of_cpu_and_gpu_differ_by_one_level_at_most(living, picture):
    import numpy as np

    from jointiq.coding.image_codec import decode_image

    model = living()
    data = encode_image(model, picture(100, 131)).data
    cpu = decode_image(model, data).image.astype(float)
    gpu = decode_image(model.to("cuda"), data).image.astype(float)
    assert np.abs(cpu - gpu).max() <= 1
    assert np.square(cpu - gpu).mean() <= 255**2 / 10**6


@pytest.mark.slow
@pytest.mark.parametrize(("N", "M"), [(128, 128), (128, 192), (192, 256), (192, 420), (256, 600)])
@pytest.mark.parametrize("scan", ["raster", "wavefront", "quarters"])
def test_every_size_of_table_1(living, latents, N, M, scan):
    model = living(N=N, M=M, scan=scan)
    y_hat, z_hat = latents(model, 144, 176)
    torch.set_num_threads(2)
    z, y = code(model.integers, y_hat, z_hat)
    torch.set_num_threads(1)
    assert torch.equal(model.integers.decode_z(z, z_hat.shape[1:]), z_hat)
    assert torch.equal(model.integers.decode_y(y, z_hat, y_hat.shape[1:]), y_hat)


def test_segments_are_those_of_the_file(living, picture, latents):
    model = living()
    image = picture(96, 112)
    container = Container.unpack(encode_image(model, image).data)
    assert (container.z, container.y) == code(model.integers, *latents(model))
