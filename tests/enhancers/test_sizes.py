"""What the configs say about the enhancers' sizes is true, and those of Figure 4 are of similar complexity."""

from __future__ import annotations

import re

import pytest
import torch
from hydra import compose, initialize_config_dir

from jointiq.configs import CONFIGS
from jointiq.enhancers import build_enhancer
from jointiq.evaluation.complexity import count_macs
from tests.marks import slow_but

ENHANCERS = sorted(path.stem for path in (CONFIGS / "enhancer").glob("*.yaml") if path.stem != "none")
SCALES = sorted(path.stem for path in (CONFIGS / "scale").glob("*.yaml"))
FIGURE_4 = ("vdsr", "rdn", "grdn_light")


def cost(enhancer: str, scale: str = "paper") -> tuple[int, int]:
    """Parameters and MACs per pixel of an enhancer at 768x512."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=[f"enhancer={enhancer}", f"scale={scale}"])
    with torch.device("meta"):
        network = build_enhancer(cfg.enhancer)
        macs = count_macs(network, torch.empty(1, 3, 512, 768))
    return sum(parameter.numel() for parameter in network.parameters()), round(macs / (512 * 768))


@pytest.mark.parametrize("enhancer", ENHANCERS)
def test_a_config_states_its_parameters_and_macs(enhancer: str) -> None:
    text = (CONFIGS / "enhancer" / f"{enhancer}.yaml").read_text(encoding="utf-8")
    (stated,) = re.findall(r"^# (\d+) parameters, (\d+) MACs per pixel\b", text, flags=re.MULTILINE)
    assert tuple(map(int, stated)) == cost(enhancer)


@pytest.mark.parametrize("enhancer", ["vdsr", "rdn"])
def test_a_config_states_what_it_is_sized_to(enhancer: str) -> None:
    text = (CONFIGS / "enhancer" / f"{enhancer}.yaml").read_text(encoding="utf-8")
    (light,) = re.findall(r"light GRDN: (\d+)", text)
    assert int(light) == cost("grdn_light")[1]


@pytest.mark.parametrize("scale", slow_but(("demo", "paper"), SCALES))
def test_the_enhancers_of_figure_4_are_of_similar_complexity(scale: str) -> None:
    vdsr, rdn, grdn = (cost(enhancer, scale)[1] for enhancer in FIGURE_4)
    assert max(abs(vdsr - grdn), abs(rdn - grdn)) <= 0.05 * grdn


@pytest.mark.parametrize("enhancer", FIGURE_4)
def test_demo_sizes_are_small(enhancer: str) -> None:
    assert cost(enhancer, "demo")[1] < 3000
