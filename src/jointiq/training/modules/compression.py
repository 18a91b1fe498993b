"""Lightning's view of a compression network: one optimizer, automatic optimization, and the names of what is logged.

The network itself knows nothing of Lightning; it is ``module.net``. One module trains all of it, the other the
quality-enhancement network alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from jointiq.errors import ConfigError, UserError
from jointiq.models.base import LearnedCodec
from jointiq.training.callbacks.stop import leaves_out_validation
from jointiq.training.modules.crops import Crops
from jointiq.training.modules.losses import MS_SSIM_SIDE, RateDistortionLoss, ms_ssim, psnr, to_8bit
from jointiq.training.schedules import Schedule


class NonFiniteError(UserError):
    """The training has diverged: the loss or a weight is NaN or infinite."""


class CompressionModule(lightning.LightningModule):
    """Trains a compression network with its (optional) enhancer by the rate-distortion loss.

    Args:
        net: a model of :func:`jointiq.models.build_model`.
        criterion: the loss.
        schedule: factor of the learning rate over the run's progress.
        lr: initial learning rate of the network.
        aux_lr: learning rate of ``.quantiles`` parameters, for models that have them.
        clip_norm: largest gradient norm of the network's parameters; None does not clip.
        crop: side in pixels, a multiple of 16, of the random part of each patch that the enhancer sees and that the
            loss counts (see :class:`jointiq.training.modules.losses.RateDistortionLoss`); None is all of it.
        name: name of the experiment, kept in the checkpoint.
    """

    def __init__(
        self,
        net: LearnedCodec,
        criterion: RateDistortionLoss,
        schedule: Schedule,
        lr: float,
        aux_lr: float = 1e-3,
        clip_norm: float | None = None,
        crop: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.net = net
        self.criterion = criterion
        self.schedule = schedule
        self.lr = lr
        self.aux_lr = aux_lr
        self.clip_norm = clip_norm
        self.crop = crop
        self.name = name
        #: Optimizer step after which the last validation ran; -1 before the first.
        self.validated_at = -1
        #: Whether CompressAI's auxiliary loss trains something.
        self.has_quantiles = bool(self._trainable(quantiles=True))
        self._sums: dict[str, list[Tensor]] = defaultdict(list)

    # ---- steps

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """Images travel to the device as bytes, (B, 3, H, W) uint8, and become [0, 1] there."""
        return batch.float() / 255

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of a batch of patches, (B, 3, H, W) in [0, 1]."""
        size = (batch.shape[-2], batch.shape[-1])
        crops = None if self.crop is None else Crops.random(len(batch), size, self.crop)
        target = batch if crops is None else crops.pixels(batch)
        loss, x_hat, parts = self.training_loss(batch, target, crops)
        values = {f"train/{key}": value for key, value in parts.items()}
        values["train/psnr"] = psnr(target, x_hat.detach().float()).mean()
        values["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict(values, batch_size=batch.shape[0])
        return loss

    def training_loss(
        self, batch: Tensor, target: Tensor, crops: Crops | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return loss (scalar, with its gradient), final output and values to log.

        Args:
            batch: patches, whole.
            target: what the final output is to be: the patches, or their crops.
            crops: what the enhancer sees of each patch; None: all.
        """
        output = self.net.compression(batch)
        x_mid = output["x_mid"] if crops is None else crops.pixels(output["x_mid"])
        output["x_hat"] = self.net.enhance(x_mid)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.criterion(output, target, crops)
            values = {"loss": terms.loss.detach(), "bpp": terms.bpp, "bpp_y": terms.bpp_y, "bpp_z": terms.bpp_z}
            loss = terms.loss
            if self.has_quantiles:
                # Trained along by a loss of its own scale; it is no part of what is compared.
                aux_loss = self.net.aux_loss()
                loss, values["aux_loss"] = loss + aux_loss, aux_loss.detach()
        return loss, output["x_hat"], values

    def validation_step(self, batch: Tensor, batch_idx: int) -> dict[str, Any]:
        """One whole image a batch, (1, 3, H, W); every image counts the same in the means. Returns the net's output."""
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
        return output

    def on_validation_epoch_end(self) -> None:
        """Log the means over the images; there are none where a stop has cut the validation."""
        sums, self._sums = self._sums, defaultdict(list)
        if leaves_out_validation(self.trainer):
            return
        self.validated_at = self.global_step
        self.log_dict({f"val/{key}": torch.stack(values).mean() for key, values in sums.items()}, sync_dist=True)

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
        optimizer = torch.optim.Adam(groups, fused=True)
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


class EnhancementModule(CompressionModule):
    """Trains the enhancer of a network by the distortion alone; the compression network is frozen (paper, section 5).

    The frozen part, its entropy model included, stays in evaluation mode: the enhancer sees what a decoder gives it,
    I's output from rounded latents. The loss is the distortion term of Eq. 7. Validation is that of the whole network.

    Args: as :class:`CompressionModule`.

    Raises:
        ConfigError: the network has no enhancer.
    """

    def __init__(self, net: LearnedCodec, *args: Any, **options: Any) -> None:
        super().__init__(net, *args, **options)
        if self.net.enhancer is None:
            raise ConfigError("enhancer.name", None, "an enhancer, because this stage trains nothing else")
        self.net.requires_grad_(False)
        self.net.enhancer.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> EnhancementModule:
        """Switch all but the frozen part."""
        super().train(mode)
        self.net.eval()
        assert self.net.enhancer is not None
        self.net.enhancer.train(mode)
        return self

    def training_loss(
        self, batch: Tensor, target: Tensor, crops: Crops | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the same without rates: they do not change."""
        with torch.no_grad():
            x_mid = self.net.synthesise(self.net.latents(batch), (batch.shape[-2], batch.shape[-1]))
        x_hat = self.net.enhance(x_mid if crops is None else crops.pixels(x_mid))
        with torch.autocast(self.device.type, enabled=False):
            loss = self.criterion.distortion_term(x_hat, target)
        return loss, x_hat, {"loss": loss.detach()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
