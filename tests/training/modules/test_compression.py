"""Optimizer groups, clipping and checkpoints of the LightningModule; the callbacks' files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from jointiq.models import build_model
from jointiq.training.csv_log import CsvLog
from jointiq.training.modules.compression import CompressionModule, NonFiniteError
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import constant

TINY = {"name": "jointiq", "N": 4, "M": 4, "G": 1, "global_context": False, "mprm": False, "scan": "raster"}


def module(net: Any = None, **options: Any) -> CompressionModule:
    options = {"lr": 1e-3, "name": "x", **options}
    return CompressionModule(net or build_model(TINY), RateDistortionLoss(0.1), constant(), **options)


class WithQuantiles(nn.Module):
    quality = None

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.prior = nn.Module()
        self.prior.quantiles = nn.Parameter(torch.ones(3))


def test_no_group_for_quantiles_that_are_not_there() -> None:
    groups = module().configure_optimizers()["optimizer"].param_groups
    assert [len(group["params"]) for group in groups] == [len(list(build_model(TINY).parameters()))]


def test_quantiles_have_a_group_of_their_own() -> None:
    groups = module(WithQuantiles(), aux_lr=0.5).configure_optimizers()["optimizer"].param_groups
    assert [len(group["params"]) for group in groups] == [2, 1]
    assert [group["lr"] for group in groups] == [1e-3, 0.5]


def test_only_the_network_is_clipped() -> None:
    net = WithQuantiles()
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    module(net).configure_gradient_clipping(None)
    assert net.layer.weight.grad is not None and net.layer.weight.grad.max() == 10
    module(net, clip_norm=1.0).configure_gradient_clipping(None)
    norm = sum(p.grad.pow(2).sum() for p in net.layer.parameters()) ** 0.5  # type: ignore[union-attr]
    assert norm == pytest.approx(1.0, rel=1e-4)
    assert torch.equal(net.prior.quantiles.grad, torch.full((3,), 10.0))


def test_checkpoint_holds_plain_values() -> None:
    checkpoint: dict[str, Any] = {}
    trained = module()
    trained.on_save_checkpoint(checkpoint)
    assert checkpoint["model_config"] == trained.net.config
    assert (checkpoint["lmbda"], checkpoint["distortion"], checkpoint["name"]) == (0.1, "mse", "x")


def test_weights_that_are_not_finite_are_not_saved() -> None:
    trained = module()
    next(iter(trained.net.parameters())).data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="weights are no longer finite"):
        trained.on_save_checkpoint({})


def test_in_quarters_all_of_a_step_is_on_the_gpu_and_nothing_waits_for_it() -> None:
    """Forward and loss on a pretended GPU, which takes no tensors of the CPU and hands no value to Python."""
    net = build_model({"name": "jointiq", "N": 4, "M": 8, "scan": "quarters"}).train()
    values = [*net.named_parameters(), *net.named_buffers()]
    with FakeTensorMode():
        there = {name: torch.empty(value.shape, device="cuda") for name, value in values}
        images = torch.empty(2, 3, 130, 150, device="cuda")
        terms = RateDistortionLoss(0.1)(functional_call(net, there, (images,)), images)
    assert terms.loss.device.type == terms.bpp.device.type == "cuda"


def test_csv_of_a_continued_run(tmp_path: Path) -> None:
    first = CsvLog(str(tmp_path))
    first.keep_until(0)
    for step in range(4):
        first.log_metrics({"a": step}, step)
    first.save()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("9,1")  # a row that the end of the process cut short
    second = CsvLog(str(tmp_path))
    second.keep_until(2)
    second.log_metrics({"a": 20, "b": 1}, 2)
    second.save()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(row["step"], row["a"], row["b"]) for row in rows] == [("0", "0", ""), ("1", "1", ""), ("2", "20", "1")]


def test_a_run_that_starts_anew_has_a_new_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a,step\n1,0\n")
    log = CsvLog(str(tmp_path))
    log.keep_until(0)
    log.log_metrics({"b": 1}, 0)
    log.save()
    assert list(csv.DictReader((tmp_path / "metrics.csv").open())) == [{"b": "1", "step": "0"}]
