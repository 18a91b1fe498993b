"""The rate tables of Lee 2019 as the paper gives them, and how `lmbda` and `distortion` choose their rows."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from jointiq.configs import CONFIGS
from jointiq.errors import ConfigError
from jointiq.training.assemble import schedule
from jointiq.training.validation import validate

MSE = (0.5, 0.4, 0.3, 0.2, 0.12, 0.06, 0.03, 0.017, 0.01)
MS_SSIM = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.03, 0.017, 0.01)

SIZES = [(128, 192)] * 5 + [(320, 420)] * 2 + [(400, 600)] * 2


def config(*overrides: str, scale: str = "paper") -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=[*overrides, f"scale={scale}"])


def row(cfg: DictConfig, lmbda: float) -> tuple[Any, ...]:
    """What ``lmbda`` brings: N, M or M1 and M2, steps, learning rate."""
    cfg.lmbda = lmbda
    sizes = [cfg.model[key] for key in ("N", "M", "M1", "M2") if key in cfg.model]
    return (*sizes, cfg.trainer.max_steps, cfg.optim.lr)


@pytest.mark.parametrize(("distortion", "lambdas"), [("mse", MSE), ("ms_ssim", MS_SSIM)])
def test_nine_rate_points(distortion: str, lambdas: tuple[float, ...]) -> None:
    base = config("+experiment=lee2019", f"distortion={distortion}")
    assert [row(base, lmbda) for lmbda in lambdas] == [(*sizes, 1_000_000, 5e-5) for sizes in SIZES]
    hybrid = config("+experiment=lee2019_hybrid", f"distortion={distortion}")
    parts = [(320, 192, 228)] * 2 + [(400, 192, 408)] * 2
    assert [row(hybrid, lmbda) for lmbda in lambdas[5:]] == [(*sizes, 2_000_000, 5e-5) for sizes in parts]


@pytest.mark.parametrize(("distortion", "lmbda"), [("mse", 0.1), ("mse", 0.05), ("ms_ssim", 0.12), ("ms_ssim", 0.06)])
def test_a_rate_point_of_the_other_distortion_is_none(distortion: str, lmbda: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.5, 0\.4, 0\.3, 0\.2, 0\.1.*0\.017, 0\.01\)"):
        validate(config("+experiment=lee2019", f"distortion={distortion}", f"lmbda={lmbda}"))


def test_low_rates_have_no_hybrid() -> None:
    with pytest.raises(ConfigError, match=r"\(0\.06, 0\.03, .* model\.N=\.\. model\.M1=\.\. model\.M2=\.\."):
        validate(config("+experiment=lee2019_hybrid", "lmbda=0.5"))
    own = ("model.N=8", "model.M1=3", "model.M2=4", "trainer.max_steps=10", "optim.lr=0.5")
    assert row(config("+experiment=lee2019_hybrid", *own), 0.5) == (8, 3, 4, 10, 0.5)


def test_a_scale_that_fixes_m_divides_it() -> None:
    cfg = config("+experiment=lee2019_hybrid", scale="demo")
    assert cfg.model.M1 == cfg.scale.M // 2 and cfg.model.M1 + cfg.model.M2 == cfg.scale.M
    cfg.scale.M = 7
    assert row(cfg, 0.4)[1:3] == (3, 4)


def test_lee2019_halves_its_learning_rate_four_times() -> None:
    factor = schedule(config("+experiment=lee2019"))
    assert [factor(step / 1e6) for step in (0, 799_999, 800_000, 850_000, 900_000, 950_000, 1_000_000)] == [
        1, 1, 0.5, 0.25, 0.125, 0.0625, 0.0625
    ]  # fmt: skip


def test_the_hybrid_has_a_million_steps_of_pre_training() -> None:
    cfg = config("+experiment=lee2019_hybrid")
    factor = schedule(cfg)
    steps = (0, 999_999, 1_000_000, 1_799_999, 1_800_000, 1_950_000)
    rates = [cfg.optim.lr * factor(step / 2e6) for step in steps]
    assert rates == pytest.approx([1e-5, 1e-5, 5e-5, 5e-5, 2.5e-5, 5e-5 / 16])


def test_demo_has_none() -> None:
    factor = schedule(config("+experiment=lee2019_hybrid", scale="demo"))
    assert factor(0) == 1 and factor(0.25) > factor(0.5)


def test_rate_positions_and_pre_training_are_checked() -> None:
    wrong = {
        "distortion.rate_positions": (0, "some", True),
        "optim.pretrain_share": (1,),
        "optim.pretrain_factor": (0,),
    }
    for key, values in wrong.items():
        cfg = config("+experiment=lee2019_hybrid")
        for value in values:
            OmegaConf.update(cfg, key, value)
            with pytest.raises(ConfigError, match=f"^{key}="):
                validate(cfg)
    for value in ("all", 1, 32):
        validate(config("+experiment=lee2019", f"distortion.rate_positions={value}"))


def test_noisy_and_gmm_change_one_thing() -> None:
    names = ("lee2019", "lee2019_noisy", "lee2019_gmm")
    base, noisy, gmm = (dict(config(f"+experiment={name}").model) for name in names)
    assert noisy == base | {"conditions": "noisy"} and base["conditions"] == "rounded"
    assert gmm == base | {"G": 3} and base["G"] == 1
