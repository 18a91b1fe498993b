"""Two processes learn what one learns: gradients, patches, means over images; every parameter gets a gradient.

And one of them is lost.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning import Callback
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jointiq.data import build_data
from jointiq.data.patches import StepSampler
from jointiq.models import build_model
from jointiq.runs.status import read_run
from jointiq.training.assemble import model_config
from jointiq.training.modules.compression import CompressionModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import constant
from tests.training import tiny, typed

CONFIG: dict[str, Any] = {
    "name": "jointiq", "N": 4, "M": 4, "scan": "wavefront",
    "enhancer": {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4},
}  # fmt: skip


class Loss(nn.Module):
    """The loss of the training as a module. Without noise, of which each process has its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trained = CompressionModule(build_model(CONFIG), RateDistortionLoss(0.1), constant(), lr=1e-3)
        self.trained.eval()

    def forward(self, batch: Tensor) -> Tensor:
        return self.trained.training_loss(batch, batch, None)[0]


def batch() -> Tensor:
    return torch.rand(8, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def one_of_two(rank: int, folder: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = DistributedDataParallel(Loss(), find_unused_parameters=False)
    numbers = next(iter(StepSampler(8, steps=1, rank=rank, world_size=2)))
    model(batch()[numbers]).backward()
    torch.save(gradients(model.module), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_times_four_is_one_times_eight(tmp_path: Path) -> None:
    mp.start_processes(one_of_two, args=(str(tmp_path),), nprocs=2, start_method="fork")
    model = Loss()
    model(batch()).backward()
    expected = gradients(model)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == expected.keys()
        for name, value in found.items():
            scale = expected[name].abs().max().item()
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4 * scale + 1e-12)


EXPERIMENTS = ("jointiq", "ablation_no_grdn", "ablation_no_gc", "ablation_no_gc_mprm", "ablation_no_gmm")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_parameter_of_every_variant_gets_a_gradient(experiment: str) -> None:
    """So that find_unused_parameters may stay false."""
    cfg = tiny.config(f"+experiment={experiment}", "scale=demo", "model.N=4", "model.M=4")
    module = CompressionModule(build_model(model_config(cfg)), RateDistortionLoss(0.1), constant(), lr=1e-3)
    module.training_loss(batch()[:1], batch()[:1], None)[0].backward()
    missing = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert missing == []


def test_every_process_validates_every_image_once(tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    cfg = tiny.config(*tiny.overrides(tmp_path))
    data = build_data(cfg.data, seed=0)
    data.setup("fit")
    data.trainer = SimpleNamespace(world_size=2, global_rank=1, global_step=0, max_steps=3)  # type: ignore[assignment]
    assert [tuple(image.shape[2:]) for image in data.val_dataloader()] == [(65, 70), (66, 64)]
    numbers = list(data.train_dataloader().batch_sampler)  # type: ignore[arg-type]
    assert numbers == [[1], [3], [5]]


def test_unused_parameters_are_not_looked_for() -> None:
    for trainer in ("ddp", "ddp_cpu"):
        assert tiny.config("scale=demo", f"trainer={trainer}").trainer.strategy == "ddp"


class WriteLoss(Callback):
    """Writes the loss that a process has had at each step into a file of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        with (self.folder / f"{trainer.global_rank}.txt").open("a") as file:
            file.write(f"{float(outputs['loss'])}\n")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_logged_are_means_over_the_processes(tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    run = tmp_path / "run"
    mine = ("+callbacks.mine._target_=tests.training.test_distributed.WriteLoss", f"+callbacks.mine.folder={tmp_path}")
    process = typed.start(*tiny.overrides(tmp_path, 4), *mine, "trainer=ddp_cpu", f"paths.run_dir={run}")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    first, second = ([float(line) for line in (tmp_path / f"{rank}.txt").read_text().split()] for rank in (0, 1))
    assert len(first) == 4 and first != pytest.approx(second, rel=1e-3)
    logged = [float(row["train/loss"]) for row in tiny.rows(run) if "train/loss" in row]
    assert logged == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)], rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lost", ["first", "second", "starting"])
def test_a_process_is_lost(tmp_path: Path, lost: str) -> None:
    """The other one says so in a line, if it is not the one that started it, and ends; the same command goes on.

    So it does where the second is lost as soon as it is started, and the first waits for it.
    """
    tiny.write_images(tmp_path)
    run = tmp_path / "run"
    command = (
        *tiny.overrides(tmp_path, 60),
        "trainer=ddp_cpu",
        "trainer.val_check_interval=60",
        f"paths.run_dir={run}",
    )
    process = typed.start(*command)
    while lost != "starting" and not (run / "checkpoints" / "last.ckpt").is_file() and process.poll() is None:
        time.sleep(0.05)
    second = 0
    while not second and process.poll() is None:
        found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "src.train"], capture_output=True, text=True)
        second = int(found.stdout or 0)
    os.kill(process.pid if lost == "first" else second, signal.SIGKILL)
    output = process.communicate(timeout=100)[0]  # and the second has closed it too
    assert process.returncode == (-signal.SIGKILL if lost == "first" else 2), output
    told = "error: another process of this training has ended; the same command goes on"
    assert "Traceback" not in output and (lost == "first" or output.splitlines()[-1] == told), output
    assert read_run(run).state == ("cut" if lost == "first" else "failed")
    again = typed.start(*command)
    output = again.communicate(timeout=500)[0]
    assert again.returncode == 0 and ("continuing after step" in output) == (lost != "starting"), output
    assert [int(row["step"]) for row in tiny.rows(run) if "train/loss" in row] == list(range(60))
