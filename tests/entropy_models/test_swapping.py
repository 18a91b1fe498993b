"""Every entropy model behind every transform: it trains, codes exactly, and comes back from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, encode_image, same_latents, to_tensor
from jointiq.coding.load import load_model
from jointiq.errors import ConfigError
from jointiq.models import build_model
from jointiq.training.modules.entropy import EntropyModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import constant

TRUNKS: dict[str, dict[str, Any]] = {
    "jointiq": {"name": "jointiq", "N": 6, "M": 9},
    "balle2017": {"name": "balle2017", "N": 6},
}
ENTROPY_MODELS: dict[str, dict[str, Any]] = {
    "context": {"G": 2, "min_known": 4},
    "hybrid": {"M1": 4},
    "factorized": {},
    "coarse_to_fine": {"h2": 8, "h1": 4},
}


def build(trunk: str, name: str) -> Any:
    torch.manual_seed(0)
    config = {**TRUNKS[trunk], "entropy_model": name, **ENTROPY_MODELS[name]}
    if name == "hybrid":
        config["M2"] = config.get("M", config["N"]) - config["M1"]
    model = build_model(config).eval()
    with torch.no_grad():
        model.g_a.convs[-1].weight.mul_(30)
    return model


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", ENTROPY_MODELS)
def test_it_codes_and_comes_back_from_files(trunk: str, name: str, picture, tmp_path: Path) -> None:
    model, image = build(trunk, name), picture(70, 61)
    encoded = encode_image(model, image)
    assert any(bool(latent.any()) for latent in encoded.latents.values())
    assert same_latents(encoded, decode_image(model, encoded.data))
    assert sum(encoded.integer_bits.values()) == pytest.approx(sum(encoded.estimated_bits.values()), rel=0.02)
    write_export(model, tmp_path / "m.safetensors")
    torch.save(model.state_dict(), tmp_path / "m.pth.tar")
    for file in ("m.safetensors", "m.pth.tar"):
        again = load_model(tmp_path / file)
        assert again.config == model.config and fingerprint(again) == fingerprint(model)
        assert same_latents(encoded, decode_image(again, encoded.data))


@pytest.mark.parametrize("name", ENTROPY_MODELS)
def test_the_stage_of_the_entropy_model_trains_it_and_nothing_else(name: str, picture) -> None:
    model = build("jointiq", name)
    trained = EntropyModule(model, RateDistortionLoss(0.1), constant(), lr=1e-3)
    y = torch.cat([model.analyse(to_tensor(picture(128, 128, seed)))["y"].detach() for seed in (0, 1)])
    trained.train()
    log_likelihoods, y_hat = model.entropy_model(y)
    assert y_hat.shape == y.shape and set(log_likelihoods) == {*model.side, "y"}
    trained.criterion.rate_terms(log_likelihoods, (128, 128)).loss.backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == key.startswith("entropy_model."), key


def test_what_a_picture_is_made_from_is_not_swapped_or_trained_alone() -> None:
    settings = {"name": "coarse_to_fine", "N": 4, "M": 6, "h2": 8, "h1": 4}
    with pytest.raises(ConfigError, match="model.entropy_model='context'.*allowed: coarse_to_fine"):
        build_model({**settings, "entropy_model": "context"})
    with pytest.raises(ConfigError, match="stage=entropy"):
        EntropyModule(build_model(settings), RateDistortionLoss(0.1), constant(), lr=1e-3)
    with pytest.raises(ConfigError, match="model.M1=4.*because y has 7 channels"):
        build_model({"name": "jointiq", "N": 4, "M": 7, "entropy_model": "hybrid", "M1": 4, "M2": 2})
