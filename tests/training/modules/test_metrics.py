"""What validation logs: means over the images, of all processes of a distributed run."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jointiq.evaluation.metrics import batch_ms_ssim, batch_psnr
from jointiq.models import build_model
from jointiq.training.modules.compression import CompressionModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.modules.metrics import MeanOverImages, MsSsim, Psnr
from jointiq.training.schedules import constant

TINY = {"name": "jointiq", "N": 4, "M": 4, "G": 1, "global_context": False, "mprm": False, "scan": "raster"}


def picture(level: float, side: int = 16) -> Tensor:
    """A batch of one image whose error against black is ``level`` of 255."""
    return torch.full((1, 3, side, side), level / 255)


def test_psnr_is_the_mean_of_the_images_not_of_their_errors() -> None:
    figure = Psnr()
    for level in (1, 20):
        figure.update(picture(0), picture(level))
    assert figure.compute().item() == pytest.approx((48.1308 + 22.1102) / 2, abs=1e-3)
    figure.reset()
    assert figure.compute() is None


def test_images_too_small_for_ms_ssim_do_not_count() -> None:
    figure = MsSsim()
    figure.update(picture(0), picture(3))
    assert figure.compute() is None
    x = torch.rand(1, 3, 161, 170, generator=torch.Generator().manual_seed(0))
    figure.update(x, x + 0.1)
    assert figure.compute().item() == pytest.approx(batch_ms_ssim(x, x + 0.1).item())


def test_every_image_counts_the_same_and_figures_stay_out_of_checkpoints() -> None:
    figure = MeanOverImages()
    figure.update(torch.tensor([1.0, 2.0]))
    figure.update(torch.tensor(6.0))
    assert figure.compute().item() == 3.0
    assert figure.state_dict() == {}


class Process(lightning.LightningDataModule):
    """Other images in each process, and not as many: one in the first, two in the second."""

    def loader(self, images: list[Tensor]) -> DataLoader:
        return DataLoader(images, batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self.loader(steps(self.trainer.global_rank))

    def val_dataloader(self) -> DataLoader:
        return self.loader(images(self.trainer.global_rank))


def images(rank: int) -> list[Tensor]:
    sizes = [(161, 165), (64, 80), (170, 164)]
    every = [random(size, seed) for seed, size in enumerate(sizes)]
    return every[:1] if rank == 0 else every[1:]


def steps(rank: int) -> list[Tensor]:
    return [random((64, 64), 10 + rank)]


def random(size: tuple[int, int], seed: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


class Training(CompressionModule):
    """A training whose weights and noise stay as they are, so that what it logs can be computed."""

    def training_loss(self, batch, target, crops):
        self.eval()
        loss, x_hat, parts = super().training_loss(batch, target, crops)
        return 0 * loss, x_hat, parts


def build() -> Training:
    torch.manual_seed(0)
    return Training(build_model(TINY), RateDistortionLoss(0.1), constant(), lr=0.0)


def test_all_processes_count_in_what_a_distributed_run_logs(tmp_path: Path) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", max_steps=1, log_every_n_steps=1, num_sanity_val_steps=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(build(), datamodule=Process())
    logged = {key: value.item() for key, value in trainer.callback_metrics.items()}

    alone = build().eval()
    validated, trained = [images(0)[0], *images(1)], [steps(0)[0], steps(1)[0]]
    with torch.no_grad():
        outputs = [(batch.float() / 255, alone.net(batch.float() / 255)) for batch in validated + trained]
    terms = [alone.criterion(output, x) for x, output in outputs]
    quality = [batch_psnr(x, output["x_hat"]).item() for x, output in outputs]
    large = [batch_ms_ssim(x, output["x_hat"]) for x, output in outputs]
    for key in ("loss", "bpp", "bpp_y", "bpp_z"):
        values = [getattr(term, key).item() for term in terms]
        assert logged[f"val/{key}"] == pytest.approx(sum(values[:3]) / 3, rel=1e-4)
        assert logged[f"train/{key}"] == pytest.approx(sum(values[3:]) / 2, rel=1e-4)
    assert logged["val/psnr"] == pytest.approx(sum(quality[:3]) / 3, rel=1e-4)
    assert logged["train/psnr"] == pytest.approx(sum(quality[3:]) / 2, rel=1e-4)
    assert logged["val/ms_ssim"] == pytest.approx(torch.cat(large).mean().item(), rel=1e-4)
