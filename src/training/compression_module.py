"""Lightning's view of a compression network: one optimizer, automatic optimization, and the names of what is logged.

The network itself knows nothing of Lightning; it is ``module.net``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import lightning
import torch
from compressai.models import CompressionModel
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from src.errors import UserError
from src.training.losses import MS_SSIM_SIDE, RateDistortionLoss, ms_ssim, psnr, to_8bit
from src.training.schedules import Schedule


class NonFiniteError(UserError):
    """The training has diverged: the loss or a weight is NaN or infinite."""


class CompressionModule(lightning.LightningModule):
    """Trains a compression network with its (optional) enhancer by the rate-distortion loss.

    Args:
        net: a model of :func:`src.models.build_model`.
        criterion: the loss.
        schedule: factor of the learning rate over the run's progress.
        lr: initial learning rate of the network.
        aux_lr: learning rate of ``.quantiles`` parameters, for models that have them.
        clip_norm: largest gradient norm of the network's parameters; None does not clip.
        name: name of the experiment, kept in the checkpoint.
    """

    def __init__(
        self,
        net: CompressionModel,
        criterion: RateDistortionLoss,
        schedule: Schedule,
        lr: float,
        aux_lr: float = 1e-3,
        clip_norm: float | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.net = net
        self.criterion = criterion
        self.schedule = schedule
        self.lr = lr
        self.aux_lr = aux_lr
        self.clip_norm = clip_norm
        self.name = name
        #: Optimizer step after which the last validation ran; -1 before the first.
        self.validated_at = -1
        self._sums: dict[str, list[Tensor]] = defaultdict(list)

    # ---- steps

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """Images travel to the device as bytes, (B, 3, H, W) uint8, and become [0, 1] there."""
        return batch.float() / 255

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of a batch of patches, (B, 3, H, W) in [0, 1].

        Raises:
            NonFiniteError: the loss is NaN or infinite.
        """
        output = self.net(batch)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.criterion(output, batch)
            loss = terms.loss + self.net.aux_loss()
        if not torch.isfinite(loss):
            raise NonFiniteError(f"the loss is {loss.item()} at step {self.global_step + 1}")
        self.log_dict(
            {
                "train/loss": loss.detach(),
                "train/bpp": terms.bpp,
                "train/bpp_y": terms.bpp_y,
                "train/bpp_z": terms.bpp_z,
                "train/psnr": psnr(batch, output["x_hat"].detach().float()).mean(),
                "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            },
            batch_size=batch.shape[0],
        )
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """One whole image a batch, (1, 3, H, W); every image counts the same in the means."""
        output = self.net(batch)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.criterion(output, batch)
            x_hat = output["x_hat"].float()
            values = {"loss": terms.loss, "bpp": terms.bpp, "bpp_y": terms.bpp_y, "bpp_z": terms.bpp_z}
            values["psnr"] = psnr(batch, x_hat).mean()
            if min(batch.shape[-2:]) > MS_SSIM_SIDE:
                values["ms_ssim"] = ms_ssim(to_8bit(batch), to_8bit(x_hat)).mean()
        for key, value in values.items():
            self._sums[key].append(value.detach())

    def on_validation_epoch_end(self) -> None:
        """Log the means over the images."""
        self.validated_at = self.global_step
        self.log_dict({f"val/{key}": torch.stack(values).mean() for key, values in self._sums.items()}, sync_dist=True)
        self._sums.clear()

    # ---- optimization

    def _trainable(self, quantiles: bool) -> list[nn.Parameter]:
        return [p for n, p in self.net.named_parameters() if n.endswith(".quantiles") == quantiles and p.requires_grad]

    def configure_optimizers(self) -> Any:
        """Adam with one group for the network and, where there are any, one for ``.quantiles``."""
        groups: list[dict[str, Any]] = [{"params": self._trainable(quantiles=False), "lr": self.lr}]
        factors = [lambda step: self.schedule(self.progress(step))]
        if quantiles := self._trainable(quantiles=True):
            groups.append({"params": quantiles, "lr": self.aux_lr})
            factors.append(lambda step: 1.0)
        optimizer = torch.optim.Adam(groups, fused=True if self.device.type == "cuda" else None)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def progress(self, step: int) -> float:
        """Share of the run that is done after ``step`` steps: of the steps or, if larger, of the time cap."""
        if self._trainer is None:
            return 0.0
        share = step / self.trainer.max_steps
        for timer in self._timers():
            remaining = timer.time_remaining()
            if remaining is not None:
                used = timer.time_elapsed()
                share = max(share, used / (used + remaining))
        return min(share, 1.0)

    def _timers(self) -> Iterator[Timer]:
        return (callback for callback in self.trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the network's parameters; never the quantiles, whose loss has a scale of its own."""
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._trainable(quantiles=False), self.clip_norm)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a reader needs to rebuild the network, as plain values.

        Raises:
            NonFiniteError: a weight is NaN or infinite; the checkpoint that stands is not to be replaced by this one.
        """
        if not all(torch.isfinite(p).all() for p in self.net.parameters()):
            raise NonFiniteError(f"the weights are no longer finite at step {self.global_step}")
        checkpoint["model_config"] = _plain(self.net.config)
        checkpoint["lmbda"] = float(self.criterion.lmbda)
        checkpoint["distortion"] = str(self.criterion.distortion)
        checkpoint["name"] = str(self.name)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
