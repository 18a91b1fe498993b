"""``init_from=pca``: transforms that code images before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from jointiq.configs import CONFIGS
from jointiq.data.datamodule import ImageData
from jointiq.data.sample import sample_images
from jointiq.errors import ConfigError
from jointiq.models import build_model
from jointiq.sweeps.stages import plan
from jointiq.training.run import train
from jointiq.training.start.pca import start_from_components
from jointiq.training.validation import validate
from tests.marks import slow
from tests.training.tiny import config, overrides, write_images

PIXELS = 1 << 18
CONFIG: dict[str, Any] = {"name": "jointiq", "N": 24, "M": 32, "enhancer": None}


@pytest.fixture(scope="module")
def patches() -> Tensor:
    images = ImageData(sample_images("train"), [], batch_size=1, crop=128)
    images.setup("fit")
    return images.first_patches(PIXELS)


def coded_psnr(net: Any, patches: Tensor, step: float = 1) -> float:
    """PSNR in dB of the pictures that g_s makes of y rounded to ``step``, from the mean squared error of all."""
    x = patches.float() / 255
    with torch.no_grad():
        y_hat = step * (net.g_a(2 * x - 1) / step).round()
        x_hat = ((net.g_s(y_hat, (128, 128)) + 1) / 2).clamp(0, 1)
    return float(-10 * (x_hat - x).square().mean().log10())


def started(lmbda: float, patches: Tensor, **sizes: int) -> Any:
    torch.manual_seed(0)
    net = build_model({**CONFIG, **sizes}).eval()
    assert f"{len(patches)} training patches" in start_from_components(net, patches, lmbda)
    return net


def test_it_codes_images_before_it_is_trained(patches: Tensor) -> None:
    torch.manual_seed(0)
    assert coded_psnr(build_model(CONFIG).eval(), patches) < 16
    assert coded_psnr(started(0.06, patches), patches) > 23


def test_channels_without_a_component_take_none_from_the_image(patches: Tensor) -> None:
    few = coded_psnr(started(0.06, patches, N=48, M=192), patches, step=0.1)
    many = coded_psnr(started(0.06, patches, N=128, M=192), patches, step=0.1)
    assert many > few + 1


def test_large_lambdas_get_coarse_latents(patches: Tensor) -> None:
    @torch.no_grad()
    def range_of_y(lmbda: float) -> float:
        return float(started(lmbda, patches).g_a(patches[:8].float() / 127.5 - 1).std())

    assert range_of_y(0.03) > 1.3 * range_of_y(0.06) > 4 * range_of_y(0.5)


def test_every_weight_of_the_transforms_gets_a_gradient(patches: Tensor) -> None:
    net = started(0.06, patches).train()
    x = patches[:2].float() / 255
    (net(x)["x_hat"] - x).square().mean().backward()
    layers = [*net.g_a.convs, *net.g_s.deconvs]
    assert all(layer.weight.grad.flatten(1).abs().amax(1).min() > 0 for layer in layers)


def test_only_the_convolutions_of_the_transforms_change(patches: Tensor) -> None:
    torch.manual_seed(0)
    before = build_model(CONFIG).state_dict()
    after = started(0.06, patches).state_dict()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert changed
    assert all(name.startswith(("g_a.convs.", "g_s.deconvs.")) for name in changed)


def test_patches_may_have_any_side(patches: Tensor) -> None:
    start_from_components(build_model(CONFIG), patches[..., :121, :], 0.06)


@pytest.mark.parametrize("other", [{"name": "balle2017", "N": 12}, {"name": "coarse_to_fine", "N": 12, "M": 16}])
def test_other_transforms_are_refused(other: dict[str, Any], patches: Tensor) -> None:
    with pytest.raises(ConfigError, match="init_from"):
        start_from_components(build_model({**other, "enhancer": None}), patches, 0.1)


def test_a_training_starts_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path)
    folder = train(config(*overrides(tmp_path, 1), "init_from=pca", f"paths.results={tmp_path}"))
    assert "start from the principal components of" in capsys.readouterr().out
    assert OmegaConf.load(folder / "config.yaml").init_from == "pca"


def test_the_first_stage_of_a_chain_may_start_so(tmp_path: Path) -> None:
    write_images(tmp_path)
    cfg = config("+experiment=jointiq_full", *overrides(tmp_path)[1:], "init_from=pca")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        first, *others = plan(cfg, tmp_path / "run", ["+experiment=jointiq_full", "init_from=pca"])
    assert first.cfg.init_from == "pca"
    assert all(str(stage.cfg.init_from).endswith("last.ckpt") for stage in others)


@pytest.mark.slow
def test_a_chain_keeps_a_random_start_that_is_typed(tmp_path: Path) -> None:
    write_images(tmp_path)
    typed = ["+experiment=jointiq_full", "init_from=null", *overrides(tmp_path)[1:]]
    for texts, expected in ((typed, None), ([text for text in typed if text != "init_from=null"], "auto")):
        cfg = config(*texts)
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            first, *others = plan(cfg, tmp_path / "run", texts)
        assert first.cfg.init_from == expected
        assert all(str(stage.cfg.init_from).endswith("last.ckpt") for stage in others)


@pytest.mark.parametrize(
    ("experiment", "starts_so"),
    [("jointiq", True), slow("lee2019_hybrid", True), ("balle2017", False), ("minnen2018", False)],
)
def test_auto_is_what_the_model_can(
    experiment: str,
    starts_so: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    write_images(tmp_path)
    own = [text for text in overrides(tmp_path, 1)[1:] if not text.startswith(("model.", "enhancer."))]
    train(config(f"+experiment={experiment}", *own, f"paths.results={tmp_path}"))
    told = capsys.readouterr()
    assert ("start from the principal components" in told.out) == starts_so
    assert "warning" not in f"{told.out}{told.err}"


def test_a_stage_that_needs_a_model_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="init_from='pca'"):
        validate(config(*overrides(tmp_path), "stage=enhancer", "init_from=pca"))
