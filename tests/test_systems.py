"""Every experiment that is shipped trains, and what it has trained codes images to files and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from jointiq.coding.image_codec import decode_image, encode_image, same_latents
from jointiq.coding.load import load_model
from jointiq.configs import CONFIGS
from jointiq.data.images import write_png
from jointiq.models.base import LearnedCodec
from jointiq.runs.folder import CHECKPOINT
from jointiq.training.run import train
from tests.marks import slow_but

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
# Of different models and entropy models; that which is trained from coarse to fine has a test of its own.
CHARACTERISTIC = ("jointiq", "lee2019_hybrid", "minnen2018", "balle2017")
# Of those that train in several stages, the one that trains everything in one.
STAGES = {"jointiq_full": "joint", "cascade_separate": "joint", "coarse_to_fine": "c2f_end"}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, picture) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(2):
        write_png(folder / "train" / f"{index}.png", picture(132, 140, seed=index))
    write_png(folder / "val" / "0.png", picture(70, 50, seed=5))
    return folder


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory):
    def run(experiment: str) -> LearnedCodec:
        folder = tmp_path_factory.mktemp(experiment)
        overrides = [f"+experiment={experiment}", "scale=demo", "trainer=cpu", "trainer.max_steps=2"]
        overrides += ["data=folder", f"data.train_dir={images / 'train'}", f"data.val_dir={images / 'val'}"]
        overrides += [f"paths.run_dir={folder}", "callbacks.progress.style=off"]
        if experiment in STAGES:
            overrides.append(f"stage={STAGES[experiment]}")
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            train(compose("train", overrides=overrides))
        return load_model(folder / CHECKPOINT)

    return run


@pytest.mark.parametrize("experiment", slow_but(CHARACTERISTIC, EXPERIMENTS))
def test_trains_and_codes(experiment: str, trained, picture) -> None:
    model = trained(experiment)
    for size in ((1, 1), (50, 77)):
        image = picture(*size)
        encoded = encode_image(model, image)
        decoded = decode_image(model, encoded.data)
        assert same_latents(encoded, decoded)
        assert decoded.image.shape == image.shape and decoded.x_mid.shape == image.shape
        assert np.isfinite(list(encoded.estimated_bits.values())).all()
        # Beside the coder's own states: eight bytes a segment, and more where a segment is cut in parts.
        assert 8 * encoded.payload_bytes <= 1.05 * sum(encoded.estimated_bits.values()) + 8 * 8 * 8
