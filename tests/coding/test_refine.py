"""Refined latents: real files, never worse, the same every time, whatever the system and the picture."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from jointiq.coding import refine
from jointiq.coding.export import read_export, write_export
from jointiq.coding.image_codec import decode_image, encode_image, to_tensor
from jointiq.coding.load import load_model
from jointiq.coding.refine import RECIPE, VARIANTS, Cost, Recipe, refine_image, relax, rounded
from jointiq.errors import ConfigError, DataError, UserError
from jointiq.evaluation.metrics import psnr
from jointiq.models import build_model
from jointiq.models.objective import Objective
from jointiq.training.modules.losses import RateDistortionLoss
from tests.conftest import make_living, photo
from tests.models.coarse_models import make_busy
from tests.models.hybrids import living_hybrid

GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}


def balle2017():
    torch.manual_seed(0)
    return build_model({"name": "balle2017", "N": 8}).eval()


#: Every system that is coded on integers, in its orders and with what changes its loss.
SYSTEMS = {
    "wavefront": make_living,
    "raster, enhancer": lambda: make_living(scan="raster", enhancer=GRDN),
    "quarters, all rates": lambda: make_living(scan="quarters", rates="continuous").at(20),
    "lee2019": lambda: make_living(G=1, global_context=False, mprm=False, hyper_abs=True, hyper_exp=True),
    "hybrid": living_hybrid,
    "balle2017": balle2017,
    "coarse_to_fine": make_busy,
}


def trained_for(model, distortion="mse", lmbda=0.1):
    model.objective = Objective(lmbda, distortion)
    return model


@pytest.mark.parametrize("distortion", ["mse", "ms_ssim"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_gives_a_better_file_that_its_decoder_reads(system, distortion):
    model, image = trained_for(SYSTEMS[system](), distortion), photo(75, 90)
    trains = [weight.requires_grad for weight in model.parameters()]
    refined = refine_image(model, image, 12, replace(RECIPE, check=4, learning_rate=0.1))
    assert refined.plain.encoded.data == encode_image(model, image).data
    assert refined.best.loss < refined.plain.loss
    decoded = decode_image(model, refined.best.encoded.data)
    assert np.array_equal(decoded.image, refined.best.picture)
    assert not np.array_equal(decoded.image, refined.plain.picture)
    assert refined.steps == 12 and not refined.interrupted
    assert [weight.requires_grad for weight in model.parameters()] == trains
    assert all(weight.grad is None for weight in model.parameters())


def test_gpus_compute_steps_with_cudnn_without_chance(monkeypatch):
    """And what is coded by the algorithms that an unrefined file is coded by."""
    model, flags, coded = trained_for(make_living()), set(), set()
    gradients, encode = Cost.gradients, refine.encode_image

    def now():
        cudnn = torch.backends.cudnn
        return cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32

    def seen(*given):
        flags.add(now())
        return gradients(*given)

    def encoded(*given):
        coded.add(now())
        return encode(*given)

    monkeypatch.setattr(Cost, "gradients", seen)
    monkeypatch.setattr(refine, "encode_image", encoded)
    refine_image(model, photo(20, 20), 2)
    assert flags == {(True, True, False)} and coded == {(True, False, False)}


def test_bits_fall_at_equal_quality_or_quality_rises_at_equal_bits():
    model, image = trained_for(make_living(), lmbda=0.5), photo(96, 112)
    refined = refine_image(model, image, 60, replace(RECIPE, learning_rate=0.2))
    assert len(refined.best.encoded.data) < 0.9 * len(refined.plain.encoded.data)
    assert psnr(image, refined.best.picture) > psnr(image, refined.plain.picture) - 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_file_every_time(variant):
    image, recipe = photo(50, 70), replace(RECIPE, variant=variant, check=3)
    first, again = (refine_image(trained_for(make_living()), image, 9, recipe).best for _ in range(2))
    assert first.encoded.data == again.encoded.data


@pytest.mark.parametrize("name", ["one pixel", "flat", "noise"])
@pytest.mark.parametrize("distortion", ["mse", "ms_ssim"])
def test_pictures_at_the_edge(name, distortion):
    images = {
        "one pixel": photo(1, 1),
        "flat": np.full((40, 33, 3), 200, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (33, 48, 3), np.uint8),
    }
    model, image = trained_for(make_living(), distortion), images[name]
    refined = refine_image(model, image, 10, replace(RECIPE, check=2))
    assert refined.best.loss <= refined.plain.loss and (refined.saved > 0) == (refined.best.loss < refined.plain.loss)
    assert np.array_equal(decode_image(model, refined.best.encoded.data).image, refined.best.picture)


def test_what_is_worse_is_not_taken(monkeypatch):
    model, image = trained_for(make_living()), photo(40, 50)
    worse = {name: value + 3 for name, value in model.latents(to_tensor(image)).items()}
    # The estimate likes it, the real file does not.
    monkeypatch.setattr(refine, "_descend", lambda *given: (worse, 5))
    refined = refine_image(model, image, 5)
    assert refined.best.encoded.data == refined.plain.encoded.data


def test_a_refinement_that_leads_nowhere_ends_early(monkeypatch):
    monkeypatch.setattr(refine, "relax", lambda latent, *given: latent * 0 + latent.detach() + 5)
    model = trained_for(make_living())
    recipe = replace(RECIPE, learning_rate=0.0, patience=0.6)
    assert refine_image(model, photo(20, 20), 50, recipe).steps == 50
    refined = refine_image(model, photo(20, 20), 100, recipe)
    assert refined.steps == 61 and refined.saved == 0
    assert refined.best.encoded.data == refined.plain.encoded.data


def test_ctrl_c_keeps_the_best_so_far():
    model, image, seen = trained_for(make_living()), photo(60, 60), []
    before = signal.getsignal(signal.SIGINT)

    def advance(step, saved):
        seen.append(saved)
        if step == 9:
            signal.raise_signal(signal.SIGINT)

    recipe = replace(RECIPE, check=4, learning_rate=0.1)
    refined = refine_image(model, image, 1000, recipe, advance)
    assert refined.interrupted and refined.steps == 9
    assert refined.best.loss < refined.plain.loss and seen[-1] > 0
    assert seen == sorted(seen) and seen[0] == 0
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("at", "steps"), [("Cost", 0), ("_candidate", 12)])
def test_ctrl_c_around_the_steps_loses_nothing(monkeypatch, at, steps):
    """Before the first one the picture is coded as it is; after the last one the file is made as if nothing was."""
    model, image = trained_for(make_living()), photo(60, 60)
    recipe = replace(RECIPE, check=4, learning_rate=0.1)
    whole = refine_image(model, image, steps, recipe)
    made = getattr(refine, at)

    def interrupted(*given):
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(refine, at, made)
        return made(*given)

    monkeypatch.setattr(refine, at, interrupted)
    refined = refine_image(model, image, 12, recipe)
    assert refined.interrupted and refined.steps == steps
    assert refined.best.encoded.data == whole.best.encoded.data


def test_a_second_ctrl_c_ends_everything():
    def advance(step, saved):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        refine_image(trained_for(make_living()), photo(20, 20), 5, advance=advance)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_loss_is_that_of_the_training():
    model = trained_for(make_living(rates="continuous").at(70))
    x = to_tensor(photo(64, 96))
    criterion = RateDistortionLoss(0.5, "mse", "bits", ends=(0.4, 0.02), balance=0)
    objective = criterion.objective
    assert objective.lambda_at(70) == pytest.approx(float(criterion.lambdas(torch.tensor([70.0]))[0]))
    cost = Cost(model, objective, x)
    with torch.no_grad():
        expected = float(criterion(model(x), x).loss)
        loss, rate = cost.evaluate(rounded(model.analyse(x)))
    # Its picture is clamped and has 8 bits.
    assert loss == pytest.approx(expected, rel=0.02) and 0 < rate < loss


def test_padding_does_not_make_bits_cheap():
    """Of a picture of one pixel a byte is 8 bits a pixel, and not 8 / 256."""
    model = trained_for(make_living(), lmbda=0.3)
    cost = Cost(model, model.objective, to_tensor(photo(1, 1)))
    assert cost.nats_weight == pytest.approx(0.3)
    assert Cost(model, model.objective, to_tensor(photo(32, 48))).nats_weight == pytest.approx(0.3 / (2 * 3 * 256))


@pytest.mark.parametrize("distortion", ["mse", "ms_ssim"])
@pytest.mark.parametrize("system", ["wavefront", "coarse_to_fine"])
def test_tiles_give_the_gradient_of_the_whole(monkeypatch, system, distortion):
    monkeypatch.setattr(refine, "has_fast_bfloat16", lambda device: False)
    model = trained_for(SYSTEMS[system](), distortion)
    cost = Cost(model, model.objective, to_tensor(photo(270, 141)))
    with torch.no_grad():
        latents = model.analyse(cost.x)
    assert cost.tile == cost.size
    whole = cost.gradients(latents)
    cost.tile = (64, 128)
    for one, other in zip(whole, cost.gradients(latents), strict=True):
        # The aggregation of the coarse-to-fine model sees a little beyond the halo.
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("distortion", ["mse", "ms_ssim"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_gradients_in_bfloat16_are_those_in_float32(monkeypatch, system, distortion):
    model, gradients = trained_for(SYSTEMS[system](), distortion), []
    for narrow in (False, True):
        monkeypatch.setattr(refine, "has_fast_bfloat16", lambda device, narrow=narrow: narrow)
        cost = Cost(model, model.objective, to_tensor(photo(75, 90)))
        with torch.no_grad():
            latents = model.analyse(cost.x)
        gradients.append(torch.cat([one.flatten() for one in cost.gradients(latents)]))
    exact, rounded_ = gradients
    assert 0 < (rounded_ - exact).norm() < 0.03 * exact.norm()


def test_large_pictures_are_cut_into_tiles_and_too_large_ones_refused(monkeypatch):
    model, image = trained_for(make_living()), photo(400, 60)
    monkeypatch.setattr(refine, "_TILE_BYTES", 5e5)
    assert Cost(model, model.objective, to_tensor(image)).tile == (64, 60)
    assert refine_image(model, image, 2).best.loss > 0
    monkeypatch.setattr(refine, "_LIKELIHOOD_BYTES", 1e4)
    with pytest.raises(
        DataError, match=r"60x400 pixels, too many to refine; allowed with this model: 0\.\d megapixels"
    ):
        refine_image(model, image, 2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [0.5, 0.01])
def test_relaxed_latents_lie_between_their_neighbours(variant, temperature):
    generator = torch.Generator().manual_seed(0)
    latent = torch.linspace(-3, 3, 20_000, requires_grad=True)
    relaxed = relax(latent, variant, temperature, generator)
    assert bool((relaxed >= latent.floor()).all() and (relaxed <= latent.floor() + 1).all())
    if temperature < 0.1:
        # Nearly all are the whole number that they would be rounded to.
        assert (relaxed - torch.round(latent)).abs().gt(0.1).float().mean() < 0.05
    relaxed.sum().backward()
    assert bool(latent.grad.isfinite().all())


def test_what_cannot_be_refined():
    compressai = build_model({"name": "compressai", "arch": "bmshj2018-hyperprior", "N": 8, "M": 8}).eval()
    with pytest.raises(UserError, match="bmshj2018-hyperprior of CompressAI cannot be refined, .*coded on integers"):
        refine_image(compressai, photo(20, 20), 3)
    with pytest.raises(UserError, match="does not say what it was trained for"):
        refine_image(make_living(), photo(20, 20), 3)
    with pytest.raises(ConfigError, match="refine"):
        refine_image(trained_for(make_living()), photo(20, 20), -1)
    with pytest.raises(ConfigError, match="variant"):
        refine_image(trained_for(make_living()), photo(20, 20), 1, Recipe(variant="noise"))


def test_files_say_what_their_model_was_trained_for(tmp_path):
    model = make_living()
    assert read_export(_exported(model, tmp_path / "unsaid.safetensors")).objective is None
    for objective in (Objective(0.1), Objective(0.02, "ms_ssim", "bits", (0.5, 0.01))):
        model.objective = objective
        assert read_export(_exported(model, tmp_path / "said.safetensors")).objective == objective
        state = {f"net.{name}": value for name, value in model.state_dict().items()}
        torch.save({"model_config": model.config, "state_dict": state, **vars(objective)}, tmp_path / "last.ckpt")
        assert load_model(tmp_path / "last.ckpt").objective == objective
    # A checkpoint from before all of it was recorded.
    torch.save({"model_config": model.config, "state_dict": state, "lmbda": 0.3}, tmp_path / "last.ckpt")
    assert load_model(tmp_path / "last.ckpt").objective == Objective(0.3)


def _exported(model, path):
    write_export(model, path)
    return path
