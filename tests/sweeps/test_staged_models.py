"""Models that grow from stage to stage: what a stage takes from the one before, its loss, and the whole chain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from jointiq.coding.export import write_export
from jointiq.coding.image_codec import decode_image, encode_image, same_latents
from jointiq.coding.load import load_model
from jointiq.configs import CONFIGS
from jointiq.data.images import write_png
from jointiq.errors import UserError
from jointiq.models import build_model
from jointiq.runs.folder import CHECKPOINT
from jointiq.training.assemble import model_config
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.run import train
from jointiq.training.start.initialise import initialise
from tests.conftest import photo
from tests.marks import slow
from tests.models.coarse_models import CONFIG

CHAIN = {"c2f_fine": 1, "c2f_coarse": 2, "c2f_aggregation": 3, "c2f_end": 4}


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_a_phase_takes_the_parts_it_shares_with_the_one_before(phase: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = build_model({**CONFIG, "phase": phase})
    torch.save({"state_dict": before.state_dict()}, tmp_path / "last.pth.tar")
    net = build_model({**CONFIG, "phase": phase + 1})
    fresh = {name: value.clone() for name, value in net.state_dict().items()}
    said = initialise(net, str(tmp_path / "last.pth.tar"))
    assert f"phase={phase} there, {phase + 1} here" in said
    theirs, mine = before.state_dict(), net.state_dict()
    for name, value in mine.items():
        if name != "_extra_state":
            assert value.equal(theirs[name] if name in theirs else fresh[name]), name
    assert net.config["phase"] == phase + 1
    assert {"g_a", "g_s", "h_a2", "h_s2", "predict_y"} <= {
        name.split(".")[0] for name in before.weights().keys() & net.weights().keys()
    }


def test_other_settings_still_have_to_agree(tmp_path: Path) -> None:
    write_export(build_model({**CONFIG, "phase": 1}), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"another compression network: h2=8 there, 12 here;"):
        initialise(build_model({**CONFIG, "phase": 2, "h2": 12}), str(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("rate_unit", ["nats", "bits"])
def test_an_auxiliary_loss_weighs_as_much_as_the_rate(rate_unit: str) -> None:
    criterion = RateDistortionLoss(0.2, rate_unit=rate_unit)
    x = torch.rand(2, 3, 32, 48)
    output = {"x_hat": x, "log_likelihoods": {"y": torch.full((2, 1, 2, 3), -1.0)}}
    rate = criterion(output, x).loss
    nats_per_pixel = 6 / (32 * 48)
    both = criterion({**output, "auxiliary": torch.tensor(nats_per_pixel)}, x)
    torch.testing.assert_close(both.loss, 2 * rate)
    torch.testing.assert_close(both.bpp, criterion(output, x).bpp)


@pytest.mark.parametrize("scale", [slow("demo"), slow("pilot"), "paper"])
def test_stages_of_the_coarse_to_fine_model(scale: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        whole = compose("train", overrides=["+experiment=coarse_to_fine", f"scale={scale}", "lmbda=0.01"])
        assert [link.stage for link in whole.stage.chain] == list(CHAIN)
        steps, sizes = [], []
        for link in whole.stage.chain:
            choices = [f"{key}={value}" for key, value in link.items()]
            cfg = compose("train", overrides=["+experiment=coarse_to_fine", f"scale={scale}", "lmbda=0.01", *choices])
            steps.append(cfg.trainer.max_steps)
            built = model_config(cfg)
            assert built["phase"] == CHAIN[link.stage] and built["enhancer"] is None
            sizes.append(tuple(built[key] for key in ("N", "M", "h2", "h1")))
    assert len(set(sizes)) == 1
    if scale == "paper":
        assert steps == [100_000, 20_000, 10_000, 420_000] and sizes[0] == (384, 384, 256, 128)


def tiny(images: Path, folder: Path, *more: str) -> list[str]:
    """Overrides for two steps of each stage of a tiny network."""
    sizes = [
        "model.N=6",
        "model.M=6",
        "model.h2=8",
        "model.h1=4",
        "trainer=cpu",
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
    ]
    data = ["data=folder", f"data.train_dir={images}", f"data.val_dir={images}", "data.crop=64", "data.batch_size=1"]
    return ["+experiment=coarse_to_fine", "scale=demo", *sizes, *data, f"paths.run_dir={folder}", *more]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_png(tmp_path / "images" / "a.png", photo(80, 70))
    return tmp_path / "images"


def codes_an_image(checkpoint: Path, phase: int) -> bool:
    model = load_model(checkpoint)
    encoded = encode_image(model, photo(50, 37))
    return model.config["phase"] == phase and same_latents(encoded, decode_image(model, encoded.data))


def test_every_stage_trains_and_codes_an_image(tmp_path: Path, images: Path) -> None:
    start = None
    for stage, phase in CHAIN.items():
        more = [f"stage={stage}", "logger=csv", *([] if start is None else [f"init_from={start}"])]
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("train", overrides=tiny(images, tmp_path / stage, *more))
        start = train(cfg) / CHECKPOINT
        assert codes_an_image(start, phase)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_trains_the_stages_one_after_the_other(tmp_path: Path, images: Path) -> None:
    command = [sys.executable, "-m", "src.train", *tiny(images, tmp_path / "run")]
    done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for number, stage in enumerate(CHAIN, start=1):
        assert codes_an_image(tmp_path / "run" / f"{number}_{stage}" / CHECKPOINT, number)
    assert codes_an_image(tmp_path / "run" / CHECKPOINT, 4)
