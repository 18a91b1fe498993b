"""Exact coding of the hybrid model: round trips, bits against the estimate, and what the two parts may not know."""

from __future__ import annotations

import contextlib

import pytest
import torch

from jointiq.bitstream.rans import DecisionDecoder
from jointiq.coding.image_codec import decode_image, encode_image, same_latents
from jointiq.entropy_models.integer.hybrid import IntegerHybridModel
from jointiq.entropy_models.integer.recorder import LATENT_MAX
from jointiq.errors import BitstreamError
from jointiq.models.base import bits
from tests.models.hybrids import CONFIG, living_hybrid

M1, M2 = CONFIG["M1"], CONFIG["M2"]
VARIANTS = {"wavefront": {}, "raster": {"scan": "raster"}, "mixture": {"G": 3}, "quarters": {"scan": "quarters"}}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


@variants
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (17, 65), (96, 112)])
def test_files_round_trip(picture, variant, size) -> None:
    model = living_hybrid(**variant)
    encoded = encode_image(model, picture(*size))
    decoded = decode_image(model, encoded.data)
    assert same_latents(encoded, decoded)
    assert decoded.image.shape == (*size, 3)
    estimate = sum(encoded.estimated_bits.values())
    assert abs(8 * len(encoded.data) - estimate) <= 0.01 * estimate + 8 * 64


@variants
def test_any_thread_count_gives_the_same_bytes(latents, variant) -> None:
    model = living_hybrid(**variant)
    y_hat, z_hat = latents(model)
    coded = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        coded.add(model.integers.encode_y(y_hat, z_hat))
    assert len(coded) == 1
    assert torch.equal(model.integers.decode_y(coded.pop(), z_hat, y_hat.shape[1:]), y_hat)


@variants
def test_real_bits_are_those_of_the_float_likelihood(latents, variant) -> None:
    """Within 0.2 %, beside the state of the coder (31 to 64 bits)."""
    model = living_hybrid(**variant)
    y_hat, z_hat = latents(model, 576, 576)
    with torch.inference_mode():
        floats = model.log_likelihoods({"y": y_hat[None].float(), "z": z_hat[None].float()})
    estimate = float(bits(floats["y"]))
    assert estimate > 20_000
    recorder = model.integers.record_y(y_hat, z_hat)
    assert recorder.bits() == pytest.approx(estimate, rel=0.002)
    assert 8 * len(recorder.encode()) - 48 == pytest.approx(estimate, rel=0.002, abs=17)


@pytest.mark.parametrize("content", ["zero", "huge"])
def test_any_latents(content) -> None:
    model = living_hybrid()
    generator = torch.Generator().manual_seed(1)
    y_hat = torch.randint(-9, 10, (M1 + M2, 5, 7), generator=generator) * (0 if content == "zero" else 1000)
    z_hat = torch.randint(-9, 10, (8, 2, 2), generator=generator)
    if content == "huge":
        y_hat[0, 0, 0], y_hat[-1, 2, 1] = LATENT_MAX, -LATENT_MAX
    assert torch.equal(model.integers.decode_y(model.integers.encode_y(y_hat, z_hat), z_hat, (5, 7)), y_hat)


def test_the_bits_begin_with_y2_which_knows_nothing_of_y1(latents, monkeypatch) -> None:
    model = living_hybrid()
    y_hat, z_hat = latents(model)
    other = y_hat.clone()
    other[:M1] += 3
    read: list[list] = []
    plain = DecisionDecoder.read

    def listen(decoder, tables):
        values = plain(decoder, tables)
        read[-1].append((tables.tolist(), values.tolist()))
        return values

    monkeypatch.setattr(DecisionDecoder, "read", listen)
    for each in (y_hat, other):
        read.append([])
        data = model.integers.encode_y(each, z_hat)
        assert torch.equal(model.integers.decode_y(data, z_hat, each.shape[1:]), each)
    same = 0
    while read[0][same] == read[1][same]:
        same += 1
    # Zero or not, of every y2 in each row, and more: the first difference lies in y1.
    assert sum(len(tables) for tables, _ in read[0][:same]) >= M2 * y_hat[0].numel()


def test_every_part_has_a_say_in_the_bits(latents) -> None:
    def changes(alter) -> bool:
        model = living_hybrid()
        y_hat, z_hat = latents(model)
        before = model.integers.encode_y(y_hat, z_hat)
        with torch.no_grad():
            alter(model)
        model.update(force=True)
        return model.integers.encode_y(y_hat, z_hat) != before

    assert changes(lambda model: model.entropy_model.h_s.conv.bias[0].add_(0.3))
    assert changes(lambda model: model.entropy_model.h_s.conv.bias[-1].add_(0.3))
    assert changes(lambda model: model.entropy_model.estimator.hidden.weight[0, 0].add_(0.3))


def test_stored_integers_and_devices_give_the_same_model(latents) -> None:
    model = living_hybrid()
    y_hat, z_hat = latents(model)
    again = IntegerHybridModel(model.integers.tensors(), model.config["G"], model.config["scan"]).to("cpu")
    assert again.encode_y(y_hat, z_hat) == model.integers.encode_y(y_hat, z_hat)


def test_damage_is_noticed_or_changes_the_latents(latents) -> None:
    model = living_hybrid()
    y_hat, z_hat = latents(model)
    data = model.integers.encode_y(y_hat, z_hat)
    for position in range(0, len(data), 41):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with contextlib.suppress(BitstreamError):
            assert not torch.equal(model.integers.decode_y(bytes(damaged), z_hat, y_hat.shape[1:]), y_hat)
    with pytest.raises(BitstreamError):
        model.integers.decode_y(bytes(12), torch.zeros(8, 128, 128), (512, 512))


@pytest.mark.slow
@pytest.mark.parametrize(("N", "M1", "M2"), [(320, 192, 228), (400, 192, 408)])
def test_the_sizes_of_the_paper(picture, N, M1, M2) -> None:
    model = living_hybrid(N=N, M1=M1, M2=M2)
    encoded = encode_image(model, picture(75, 100))
    assert same_latents(encoded, decode_image(model, encoded.data))
    assert encoded.integer_bits["y"] == pytest.approx(encoded.estimated_bits["y"], rel=0.002)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@variants
def test_cpu_and_gpu_read_each_other(latents, variant) -> None:
    model = living_hybrid(**variant)
    y_hat, z_hat = latents(model, 160, 208)
    exact = {"cpu": model.integers, "cuda": model.integers.to("cuda")}
    data = exact["cpu"].encode_y(y_hat, z_hat)
    assert exact["cuda"].encode_y(y_hat, z_hat) == data
    for entropy in exact.values():
        assert torch.equal(entropy.decode_y(data, z_hat, y_hat.shape[1:]).cpu(), y_hat)
