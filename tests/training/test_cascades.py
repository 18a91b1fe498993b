"""Figure 4: the same compression network with each enhancer behind it, and the cascade that is trained separately."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from jointiq.configs import CONFIGS
from jointiq.training.assemble import model_config
from jointiq.training.validation import validate
from tests.marks import slow, slow_but

ENHANCERS = {"enhancer_none": None, "enhancer_vdsr": "vdsr", "enhancer_rdn": "rdn", "enhancer_grdn": "grdn"}


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=list(overrides))
    validate(cfg)
    return cfg


def without_enhancer(cfg: DictConfig) -> dict[str, Any]:
    return {key: value for key, value in model_config(cfg).items() if key != "enhancer"}


@pytest.mark.parametrize("experiment", slow_but(("enhancer_none", "enhancer_grdn"), ENHANCERS))
def test_the_compression_network_is_that_of_lee_2019(experiment: str) -> None:
    cfg, lee = config(f"+experiment={experiment}", "lmbda=0.12"), config("+experiment=lee2019", "lmbda=0.12")
    assert without_enhancer(cfg) == without_enhancer(lee)
    assert cfg.enhancer.name == ENHANCERS[experiment]
    assert (cfg.trainer.max_steps, cfg.optim.lr) == (lee.trainer.max_steps, lee.optim.lr)
    assert cfg.stage.trains == "all"


def stages(scale: str) -> list[DictConfig]:
    separate = f"scale={scale}", "+experiment=cascade_separate"
    links = [[f"{key}={value}" for key, value in link.items()] for link in config(*separate).stage.chain]
    starts = [[], *(["init_from=x.ckpt"] for _ in links[1:])]
    return [config(*separate, *link, *start) for link, start in zip(links, starts, strict=True)]


@pytest.mark.parametrize("scale", ["paper", slow("demo")])
def test_separate_training_ends_with_the_model_of_the_joint_one(scale: str) -> None:
    joint = config(f"scale={scale}", "+experiment=enhancer_grdn")
    alone, enhancer = stages(scale)
    assert model_config(alone)["enhancer"] is None and alone.stage.trains == "all"
    assert model_config(enhancer) == model_config(joint) and enhancer.stage.trains == "enhancer"
    assert enhancer.stage.crop is None
    assert alone.trainer.max_steps == enhancer.trainer.max_steps == joint.trainer.max_steps
