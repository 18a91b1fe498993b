"""What is typed with ``+``: accepted where something reads it, and completed by the tab key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import utils as hydra_utils

from jointiq import typed
from jointiq.configs import CONFIGS
from jointiq.errors import UserError
from jointiq.training.validation import refuse_unread
from tests.fresh import ROOT, Fresh


def check(*overrides: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        refuse_unread("train", compose("train", overrides=list(overrides)), overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("+experiment=jointiq", "+trainer.detect_anomaly=true", "++optim.weight_decay=0.1", "+stage.lr=1e-3"),
        (
            "+callbacks.mine._target_=lightning.pytorch.callbacks.EarlyStopping",
            "+callbacks.mine.monitor=val/loss",
            "~callbacks.psi",
        ),
        ("+logger.more._target_=lightning.pytorch.loggers.CSVLogger", "+logger.more.save_dir=x"),
        ("logger=wandb", "+logger.wandb.entity=team", "~callbacks.psi"),
        ("+scale.M1=8", "entropy_model=hybrid"),
        ("+width=64", "model.N=${width}"),
        ("debug=fdr",),
    ],
)
def test_what_something_reads_is_accepted(overrides: tuple[str, ...]) -> None:
    check(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("+callbacks.mine._target_=lightning.pytorch.callbacks.EarlyStopping", "+callbacks.mine.monitr=val/loss"),
            "callbacks.mine.monitr: .*nearest: callbacks.mine.monitor",
        ),
        (("+callbacks.mine._target_=nowhere.Nothing",), "No module named 'nowhere'"),
        (("logger=wandb", "+logger.wandb.entiti=team"), "nearest: logger.wandb.entity"),
        (("+scale.M1=8",), "scale.M1: nothing reads"),
        (("+width=64",), "width: nothing reads"),
    ],
)
def test_what_nothing_reads_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(*overrides)


def test_a_part_of_ones_own_brings_its_keys(tmp_path: Path) -> None:
    (tmp_path / "scale").mkdir()
    (tmp_path / "scale" / "mine.yaml").write_text("defaults: [demo, _self_]\nextra: 1\n")
    search = f"hydra.searchpath=[{tmp_path}]"
    check(search, "scale=mine", "++scale.extra=2")
    with pytest.raises(UserError, match="scale.extre: .*nearest: scale.extra"):
        check(search, "scale=mine", "+scale.extre=2")


@pytest.fixture(scope="module")
def completion(fresh: Fresh) -> str:
    return fresh.run("src.train", "-sc", "install=bash")[2]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("python -m src.train enhancer=gr", "enhancer=grdn_full enhancer=grdn_light enhancer=grdn_tiny"),
        ("python -m src.train data=", "data=folder data=prepared data=sample"),
        ("python -m src.train +experiment=jointiq optim.sched", "optim.schedule="),
        ("python -m src.eval", "src.evaluate"),
        ("python other.py ", ""),
    ],
)
def test_tab_completes(completion: str, line: str, offered: str) -> None:
    ask = f"""
python() {{ {sys.executable} "$@"; }}
{completion}
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE)
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_jointiq_complete
echo "${{COMPREPLY[*]}}"
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(["bash", "-c", ask], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == offered


@pytest.mark.parametrize(
    ("launcher", "module", "extra"),
    [("ray", "ray", "ray"), ("slurm", "hydra_plugins.hydra_submitit_launcher", "cluster")],
)
def test_an_extra_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, launcher: str, module: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else object())
    with pytest.raises(UserError, match=rf"to install it: pip install -e '\.\[{extra}\]' -c constraints\.txt"):
        typed._check_override("train", f"hydra/launcher={launcher}", sweeps=True)


def test_lightning_may_add_settings_for_a_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It repeats the command line of a distributed training, with these."""
    arguments = hydra_utils.get_args_parser().parse_args(["seed=1", "hydra.run.dir=x", "hydra.output_subdir=null"])
    with pytest.raises(UserError, match="paths.run_dir=DIR"):
        typed._check("train", arguments)
    monkeypatch.setenv("LOCAL_RANK", "1")
    typed._check("train", arguments)
