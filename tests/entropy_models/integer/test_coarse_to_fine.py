import pytest
import torch

from jointiq.entropy_models.integer.coarse_to_fine import IntegerCoarseToFine
from jointiq.errors import BitstreamError
from jointiq.layers import integer_layers as fixed_point
from jointiq.layers import neighbourhood
from tests.models.coarse_models import busy_latents, make_busy

SIZE = (96, 112)
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


def segments(exact, latents):
    return {name: recorder.encode() for name, recorder in exact.record(latents).items()}


@pytest.mark.parametrize("phase", [1, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (40, 17), SIZE])
def test_round_trip(size, phase):
    model = make_busy(phase)
    with torch.inference_mode():
        latents = {name: value[0].long() for name, value in model.latents(torch.rand(1, 3, *size)).items()}
    decoded = model.integers.decode(segments(model.integers, latents), size)
    assert list(decoded) == [*model.side, "y"]
    for name, latent in latents.items():
        assert decoded[name].dtype == torch.int64 and torch.equal(decoded[name], latent)


def test_any_integers_can_be_coded():
    exact = make_busy().integers
    torch.manual_seed(0)
    latents = {"h1": torch.randint(-99, 99, (6, 2, 1)), "h2": torch.randint(-9999, 9999, (8, 3, 2))}
    latents["y"] = torch.randint(-(1 << 23) + 1, 1 << 23, (12, 6, 3))
    decoded = exact.decode(segments(exact, latents), (90, 48))
    assert all(torch.equal(decoded[name], latent) for name, latent in latents.items())


def test_values_out_of_range_are_refused():
    model = make_busy()
    latents = busy_latents(model)
    for name in ("h1", "h2", "y"):
        wrong = {**latents, name: latents[name].clone()}
        wrong[name][0, 0, 0] = 1 << 23
        with pytest.raises(BitstreamError, match="beyond"):
            model.integers.record(wrong)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_threads_strips_and_devices_do_not_change_the_bytes(device, monkeypatch):
    model = make_busy()
    latents = busy_latents(model)
    expected = segments(model.integers, latents)
    torch.set_num_threads(3)
    for strip in (1, 17):
        monkeypatch.setattr(neighbourhood, "STRIP_POSITIONS", strip)
        monkeypatch.setattr(fixed_point, "STRIP_POSITIONS", strip)
        exact = model.integers.to(device)
        assert segments(exact, latents) == expected
        decoded = exact.decode(expected, SIZE)
        assert all(torch.equal(decoded[name].cpu(), latent) for name, latent in latents.items())


def test_integers_make_the_same_model_again():
    model = make_busy()
    latents = busy_latents(model)
    again = IntegerCoarseToFine(model.integers.tensors())
    assert again.tensors().keys() == model.integers.tensors().keys()
    assert segments(again, latents) == segments(model.integers, latents)


def test_a_prediction_reads_the_latent_above():
    model = make_busy()
    latents = busy_latents(model)
    before = segments(model.integers, latents)
    after = segments(model.integers, {**latents, "h1": latents["h1"] + 1})
    assert after["h2"] != before["h2"] and after["y"] == before["y"]
    after = segments(model.integers, {**latents, "h2": latents["h2"] + 1})
    assert after["h1"] == before["h1"] and after["y"] != before["y"]


def test_segments_that_are_too_short_or_too_long_are_refused():
    model = make_busy()
    whole = segments(model.integers, busy_latents(model))
    for name, data in whole.items():
        for damaged in (b"", data[:8], data[:-12], data + bytes(12)):
            with pytest.raises(BitstreamError):
                model.integers.decode({**whole, name: damaged}, SIZE)
