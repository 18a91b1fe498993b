"""Every experiment on a pretended GPU: a step's forward pass and loss, coding to bytes and back, as on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from jointiq.configs import option_names
from jointiq.models import build_model
from jointiq.models.base import LearnedCodec
from jointiq.training.assemble import model_config
from jointiq.training.modules.losses import RateDistortionLoss
from tests.pretended_gpu import GPU, pretended_gpu
from tests.training import tiny

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")

#: What is run by the quick tests.
QUICK = ("jointiq",)
CASES = [
    *((name, ()) for name in option_names("experiment")),
    ("jointiq", ("model.scan=quarters",)),
    ("jointiq", ("model.rates=continuous",)),
    ("jointiq", ("model.scan=raster", "distortion=ms_ssim")),
]


def test_devices_may_not_mix() -> None:
    with pretended_gpu():
        there = torch.arange(3.0, device=GPU)
        assert there.device == GPU and (2 * there).tolist() == [0, 2, 4]
        assert float(there.cpu() @ torch.ones(3)) == 3
        with pytest.raises(RuntimeError, match="add: tensors of the CPU and of the GPU"):
            there + torch.ones(3)
        there[1:].copy_(torch.ones(2))
        assert there.tolist() == [0, 1, 1]


def run(net: LearnedCodec, criterion: RateDistortionLoss, x: Tensor, device: torch.device) -> list[Any]:
    """What a step and a file come to."""
    net, x = net.to(device), x.to(device)
    torch.manual_seed(1)
    loss = criterion(net.train()(x), x).loss
    coded = net.eval().encode(x)
    assert {value.device for value in coded.latents.values()} == {device}
    decoded = net.decode(coded.side, coded.y, (x.shape[-2], x.shape[-1]))
    for name, symbols in coded.symbols.items():
        assert torch.equal(decoded.symbols[name].cpu().long(), symbols)
    picture, _ = net.reconstruct_from(
        {name: net.to_float(one[None]) for name, one in decoded.latents.items()}, (128, 128)
    )
    assert loss.device == picture.device == device
    return [float(loss), coded.side, coded.y, picture.cpu()]


@pytest.mark.parametrize(
    ("experiment", "more"),
    [case if case[0] in QUICK and not case[1] else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_every_experiment_runs_there(experiment: str, more: tuple[str, ...]) -> None:
    cfg = tiny.config(f"+experiment={experiment}", "scale=demo", *more)
    torch.manual_seed(0)
    config = model_config(cfg)
    criterion = RateDistortionLoss(0.1, cfg.distortion.name)
    x = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        net = build_model(config)
        state = {name: value.clone() for name, value in net.state_dict().items()}
        expected = run(net, criterion, x, torch.device("cpu"))
        net = build_model(config)
        net.load_state_dict(state)
        with pretended_gpu():
            found = run(net, criterion, x, GPU)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1:3] == expected[1:3]
    torch.testing.assert_close(found[3], expected[3])
