"""``stage=entropy``: what is trained, by which loss, and that its checkpoints are ordinary ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.coding.load import load_model
from jointiq.configs import CONFIGS
from jointiq.data.images import write_png
from jointiq.data.latents import LatentData
from jointiq.errors import ConfigError, UserError
from jointiq.models import build_model
from jointiq.training.modules.entropy import EntropyModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.run import train
from jointiq.training.schedules import constant
from jointiq.training.validation import validate

CONFIG: dict[str, Any] = {"name": "jointiq", "N": 4, "M": 4, "scan": "wavefront"}
TRUNK = {"g_a", "g_s", "enhancer"}


def module(**config: Any) -> EntropyModule:
    torch.manual_seed(0)
    return EntropyModule(build_model({**CONFIG, **config}), RateDistortionLoss(0.1), constant(), lr=1e-2)


def config(*overrides: str, init_from: str | Path = "x.ckpt") -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=["stage=entropy", f"init_from={init_from}", *overrides])


def test_a_step_changes_all_of_the_entropy_model_and_nothing_else() -> None:
    trained = module(enhancer={"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4})
    before = {name: value.clone() for name, value in trained.net.state_dict().items()}
    optimizer = trained.configure_optimizers()["optimizer"]
    log_likelihoods, _ = trained.net.entropy_model(3 * torch.randn(2, 4, 16, 16))
    trained.criterion.rate_terms(log_likelihoods, (256, 256)).loss.backward()
    optimizer.step()
    names = {name for name, value in trained.net.state_dict().items() if not value.equal(before[name])}
    assert all(name.startswith("entropy_model.") for name in names)
    changed = {name.split(".")[1] for name in names}
    assert changed == {"h_a", "h_s", "z_prior", "global_context", "estimator"}
    held = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    trunk = sum(p.numel() for name in TRUNK for p in getattr(trained.net, name).parameters())
    assert held == sum(parameter.numel() for parameter in trained.net.parameters()) - trunk


@pytest.mark.parametrize("hyper_abs", [False, True])
def test_the_loss_is_the_rate_that_joint_training_sees(hyper_abs: bool) -> None:
    trained = module(hyper_abs=hyper_abs)
    x = torch.rand(2, 3, 128, 160)
    y = trained.net.analyse(x)["y"].detach()
    torch.manual_seed(3)
    output = trained.net(x)
    whole = trained.criterion(output, x)
    torch.manual_seed(3)
    rate = trained.criterion.rate_terms(trained.net.entropy_model(y)[0], (128, 160))
    torch.testing.assert_close(rate.loss, whole.loss - trained.criterion.distortion_term(output["x_hat"], x))
    torch.testing.assert_close(rate.bpp, whole.bpp)
    assert float(rate.bpp) > 0


def test_only_images_are_scaled() -> None:
    trained = module()
    y, x = torch.full((1, 4, 2, 2), 7.0), torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert trained.on_after_batch_transfer(y, 0).equal(y)
    assert trained.on_after_batch_transfer(x, 0).equal(torch.ones(1, 3, 2, 2))


def test_a_model_of_another_kind_is_refused() -> None:
    net = build_model({"name": "compressai", "arch": "bmshj2018-hyperprior", "N": 4, "M": 4})
    with pytest.raises(ConfigError, match="model.name='compressai' .*stage=entropy"):
        EntropyModule(net, RateDistortionLoss(0.1), constant(), lr=1e-2)


def test_the_stage_brings_its_sizes_and_the_command_line_wins() -> None:
    cfg = config("+experiment=jointiq", "scale=paper", "lmbda=0.5")
    validate(cfg)
    assert (cfg.optim.lr, cfg.data.crop, cfg.trainer.max_steps) == (1e-3, 256, 50_000)
    assert cfg.data.batch_size == cfg.stage.batch_size and cfg.model.N == 128
    cfg = config("scale=demo", "data.crop=128", "data.batch_size=3", "optim.lr=0.5", "trainer.max_steps=7")
    assert (cfg.optim.lr, cfg.data.crop, cfg.data.batch_size, cfg.trainer.max_steps) == (0.5, 128, 3, 7)
    assert config("scale=demo").trainer.max_steps == 300


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.crop=200", "data.crop=200 .*multiple of 16, with stage=entropy"),
        ("stage.copies=0", "stage.copies=0"),
        ("stage.takes=model", "one of trunk, shared"),
        ("init_from=null", "init_from=None .*stage=entropy"),
    ],
)
def test_wrong_values_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(config(override))


@pytest.fixture
def trunk(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = build_model({**CONFIG, "G": 1, "global_context": False, "mprm": False, "scan": "raster"})
    with torch.no_grad():
        net.g_a.convs[-1].weight.mul_(30)
    state = {f"net.{name}": value for name, value in net.state_dict().items()}
    torch.save({"model_config": net.config, "state_dict": state}, tmp_path / "trunk.ckpt")
    return tmp_path / "trunk.ckpt"


@pytest.fixture
def overrides(tmp_path: Path, picture: Any) -> list[str]:
    write_png(tmp_path / "images" / "0.png", picture(160, 144))
    return [
        "+experiment=jointiq", "scale=demo", "trainer=cpu", "trainer.max_steps=3", "data=folder", "data.crop=128",
        f"data.train_dir={tmp_path}/images", f"data.val_dir={tmp_path}/images", "model.N=4", "model.M=4",
        f"paths.run_dir={tmp_path}/run", "callbacks.progress.style=off",
    ]  # fmt: skip


def test_a_trunk_with_another_enhancer_is_refused(trunk: Path, overrides: list[str]) -> None:
    with pytest.raises(UserError, match="enhancer=none there, grdn .* here; allowed: .*enhancer"):
        train(config(*overrides, init_from=trunk))


def test_a_continued_training_computes_the_latents_of_its_checkpoint(
    trunk: Path, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[list[Tensor]]] = []
    compute = LatentData.latents
    monkeypatch.setattr(LatentData, "latents", lambda self: seen.append(compute(self)) or seen[-1])
    folder = train(config(*overrides, "enhancer=none", init_from=trunk))
    copy = tmp_path / "copy.ckpt"
    (folder / "checkpoints" / "last.ckpt").rename(copy)
    more = ("enhancer=none", "trainer.max_steps=5", f"ckpt_path={copy}", f"paths.run_dir={tmp_path}/more")
    train(config(*overrides, *more))
    first, second = ([y for versions in latents for y in versions] for latents in seen)
    assert all(map(torch.equal, first, second))


def test_a_training_from_end_to_end(trunk: Path, overrides: list[str], picture: Any) -> None:
    folder = train(config(*overrides, "enhancer=none", init_from=trunk))
    frozen, trained = load_model(trunk), load_model(folder / "checkpoints" / "last.ckpt")
    assert (trained.config["G"], trained.config["scan"]) == (3, "quarters")
    for name, value in frozen.state_dict().items():
        if name.startswith(("g_a.", "g_s.")):
            assert value.equal(trained.state_dict()[name])
    image = picture(70, 90)
    encoded = encode_image(trained, image)
    decoded = decode_image(trained, encoded.data)
    assert all(latent.equal(decoded.latents[name]) for name, latent in encoded.latents.items())
    assert (decoded.image == decode_image(frozen, encode_image(frozen, image).data).image).all()
