"""``optim=``: any optimizer of torch with its arguments, in two groups; Adam's runs keep their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf, open_dict

from jointiq.errors import ConfigError
from jointiq.runs.name import run_key
from jointiq.training.modules.compression import COURSE, optimizer_of
from jointiq.training.soap import SOAP
from tests.training.tiny import config


def made(*overrides: str) -> torch.optim.Optimizer:
    optim: Any = OmegaConf.to_container(config("+experiment=jointiq", *overrides).optim, resolve=True)
    weights, quantiles = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    groups = [{"params": [weights], "lr": optim["lr"]}, {"params": [quantiles], "lr": optim["aux_lr"]}]
    return optimizer_of(optim)(groups)


@pytest.mark.parametrize(
    ("overrides", "kind", "settings"),
    [
        ([], torch.optim.Adam, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0}),
        (["+optim.betas=[0.8,0.9]"], torch.optim.Adam, {"betas": (0.8, 0.9)}),
        (["optim=lee2019"], torch.optim.Adam, {"lr": 1e-3}),
        (["optim=adamw", "optim.weight_decay=0.02"], torch.optim.AdamW, {"weight_decay": 0.02}),
        (["optim=sgd", "optim.lr=0.5", "optim.momentum=0.5"], torch.optim.SGD, {"lr": 0.5, "momentum": 0.5}),
        (["optim=sgd", "+optim.nesterov=true"], torch.optim.SGD, {"nesterov": True, "momentum": 0.9}),
        (["optim=soap", "optim.frequency=5"], SOAP, {"betas": [0.95, 0.95], "frequency": 5}),
        (["optim._target_=torch.optim.RMSprop", "+optim.alpha=0.7"], torch.optim.RMSprop, {"alpha": 0.7}),
    ],
)
def test_optimizers_take_their_arguments_as_typed(overrides: list[str], kind: type, settings: dict[str, Any]) -> None:
    optimizer = made("scale=demo", *overrides)
    assert type(optimizer) is kind
    network, quantiles = optimizer.param_groups
    assert {key: network[key] for key in settings} == settings
    assert quantiles["lr"] == 1e-3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+optim.foo=1"], r"optim.foo=1 is not allowed; allowed: the arguments of torch.optim.Adam: betas, eps, "),
        (["+optim.momentum=0.9"], "optim.momentum=0.9 is not allowed"),
        (["optim=soap", "+optim.momentum=0.9"], "optim.momentum=0.9 is not allowed.*longest"),
        (["optim=soap", "optim.frequency=0"], "Invalid frequency value: 0"),
        (["optim=adamw", "optim.weight_decay=-1"], "Invalid weight_decay value: -1"),
        (["optim._target_=torch.optim.Nope"], "optim._target_='torch.optim.Nope' is not allowed"),
    ],
)
def test_what_an_optimizer_does_not_take_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        made(*overrides)
    assert len(str(error.value).splitlines()) == 1


def test_the_course_is_all_that_optimizers_share() -> None:
    assert set(config("+experiment=jointiq").optim) - {"_target_"} == COURSE


def test_runs_of_adam_keep_their_names_and_others_have_their_own() -> None:
    adam = config("+experiment=jointiq", "lmbda=0.03")
    before = adam.copy()
    with open_dict(before.optim):
        del before.optim["_target_"]
    assert run_key(adam) == run_key(before)
    others = [config("+experiment=jointiq", "lmbda=0.03", f"optim={name}") for name in ("adamw", "sgd", "soap")]
    assert len({run_key(cfg) for cfg in (adam, *others)}) == 4
