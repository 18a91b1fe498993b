"""LightningModules that train a compression network by the rate-distortion loss, or its enhancer by the distortion.

The network itself, ``module.net``, knows nothing of Lightning. One optimizer, automatic optimization.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import hydra
import lightning
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from jointiq.bitstream.container import HIGHEST, LOWEST
from jointiq.errors import ConfigError, UserError, nearest
from jointiq.evaluation.metrics import batch_psnr
from jointiq.models.base import LearnedCodec
from jointiq.training.modules.crops import Crops
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.modules.metrics import MeanOverImages, MsSsim, Psnr
from jointiq.training.schedules import Schedule

#: Makes an optimizer from parameter groups, ``[{"params": ..., "lr": ...}, ...]``.
MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

#: The papers' optimizer.
ADAM: MakeOptimizer = functools.partial(torch.optim.Adam, fused=True)

#: Keys of ``optim`` that are no arguments of the optimizer: ``conf/optim/_course.yaml``.
COURSE = frozenset((
    "lr", "aux_lr", "clip_norm", "ema_decay", "compile", "schedule", "halvings", "decay_steps", "decay_share",
    "final_share", "pretrain_share", "pretrain_factor",
))  # fmt: skip


def optimizer_of(optim: Mapping[str, Any]) -> MakeOptimizer:
    """Return a function that makes the optimizer of an ``optim`` config: ``_target_`` with all keys but :data:`COURSE`.

    Raises:
        ConfigError: no such class, or an argument or value that it does not take.
    """
    target = optim.get("_target_", "torch.optim.Adam")
    try:
        made = hydra.utils.get_class(target)
    except Exception as error:
        raise ConfigError("optim._target_", target, "an optimizer's class, such as torch.optim.AdamW") from error
    arguments = {key: value for key, value in optim.items() if key not in COURSE and key != "_target_"}
    known = [key for key in inspect.signature(made).parameters if key not in ("params", "lr")]
    for key, value in arguments.items():
        if key not in known:
            allowed = f"the arguments of {target}: {', '.join(known)}{nearest(key, [*known, *COURSE])}"
            raise ConfigError(f"optim.{key}", value, allowed)
    if "fused" in known and "foreach" not in arguments:
        arguments.setdefault("fused", True)
    make = functools.partial(made, **arguments)
    try:
        make([{"params": [nn.Parameter(torch.zeros(1))], "lr": optim["lr"]}])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("optim", arguments, f"what {target} takes ({error})") from error
    return make


#: Qualities at which a model of all rates is validated; pictures show the second.
VALIDATED_QUALITIES = (1, 50, 100)


class NonFiniteError(UserError):
    """The training has diverged: the loss or a weight is NaN or infinite."""


class CompressionModule(lightning.LightningModule):
    """Train a compression network with its (optional) enhancer by the rate-distortion loss.

    Args:
        net: a model of :func:`jointiq.models.build_model`. A model of all rates is validated at each of
            :data:`VALIDATED_QUALITIES`, and the means are over all of them.
        criterion: the loss.
        schedule: factor of the learning rate over the run's progress.
        lr: initial learning rate of the network.
        aux_lr: learning rate of ``.quantiles`` parameters, for models that have them.
        clip_norm: largest gradient norm of the network's parameters; None does not clip.
        crop: side in pixels, a multiple of 16, of the random crop of each patch that the enhancer and the loss see
            (see :class:`jointiq.training.modules.losses.RateDistortionLoss`); None: the whole patch.
        name: name of the experiment, stored in the checkpoint.
        optimizer: makes the optimizer; see :func:`optimizer_of`.
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
        optimizer: MakeOptimizer = ADAM,
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
        self.make_optimizer = optimizer
        #: Optimizer step after which the last validation ran; -1 before the first.
        self.validated_at = -1
        #: Whether CompressAI's auxiliary loss trains something.
        self.has_quantiles = bool(self._trainable(quantiles=True))
        #: Metrics of the validation by name; of a model of all rates also those at each quality, ``NAME_qQUALITY``.
        self.validated: Any = nn.ModuleDict(_metrics(""))
        if net.quality is not None:
            for quality in VALIDATED_QUALITIES:
                self.validated.update(_metrics(f"_q{quality}"))

    # ---- steps

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """Scale images (B, 3, H, W), moved to the device as uint8, to [0, 1]."""
        return batch.float() / 255

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch of patches, (B, 3, H, W) in [0, 1]."""
        size = (batch.shape[-2], batch.shape[-1])
        crops = None if self.crop is None else Crops.random(len(batch), size, self.crop)
        target = batch if crops is None else crops.pixels(batch)
        loss, x_hat, parts = self.training_loss(batch, target, crops)
        if self.is_logged():
            self.log_step({**parts, "psnr": batch_psnr(target, x_hat.detach().float()).mean()}, batch.shape[0])
        return loss

    def is_logged(self) -> bool:
        """Return whether this step is logged. In other steps no process or device needs to wait for the values."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def log_step(self, values: Mapping[str, Tensor], images: int) -> None:
        """Log the learning rate and the values of a step, averaged over the processes, as ``train/...``."""
        self.log_dict({f"train/{key}": value for key, value in values.items()}, batch_size=images, sync_dist=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=images)

    def training_loss(
        self, batch: Tensor, target: Tensor, crops: Crops | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the loss (a scalar with gradient), the final output and the values to log.

        Args:
            batch: whole patches.
            target: the patches, or their crops, with which the final output is compared.
            crops: the part of each patch that the enhancer sees; None: all.
        """
        output = self.net.compression(batch)
        x_mid = output["x_mid"] if crops is None else crops.pixels(output["x_mid"])
        output["x_hat"] = self.net.enhance(x_mid)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.criterion(output, target, crops)
            values = {"loss": terms.loss.detach(), "bpp": terms.bpp, "bpp_y": terms.bpp_y, "bpp_z": terms.bpp_z}
            loss = terms.loss
            if self.has_quantiles:
                # The auxiliary loss has a scale of its own; it is left out of the logged loss that runs compare.
                aux_loss = self.net.aux_loss()
                loss, values["aux_loss"] = loss + aux_loss, aux_loss.detach()
        return loss, output["x_hat"], values

    def validation_step(self, batch: Tensor, batch_idx: int) -> dict[str, Any] | None:
        """Measure an image (1, 3, H, W) and return the network's output; None after a stop."""
        if self.trainer.interrupted:
            return None
        if self.net.quality is None:
            return self._validate(self.net, batch, "")
        outputs = {one: self._validate(self.net.at(one), batch, "", f"_q{one}") for one in VALIDATED_QUALITIES}
        return outputs[VALIDATED_QUALITIES[1]]

    def _validate(self, net: LearnedCodec, batch: Tensor, *suffixes: str) -> dict[str, Any]:
        """Add an image, coded by ``net``, to the metrics whose names have one of ``suffixes``; return the output."""
        output: dict[str, Any] = net(batch)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.criterion(output, batch)
            rates = {"loss": terms.loss, "bpp": terms.bpp, "bpp_y": terms.bpp_y, "bpp_z": terms.bpp_z}
            for suffix in suffixes:
                for key, value in rates.items():
                    self.validated[key + suffix].update(value)
                for key in ("psnr", "ms_ssim"):
                    self.validated[key + suffix].update(batch, output["x_hat"].float())
        return output

    def on_validation_epoch_end(self) -> None:
        """Log the means over the images of all processes, unless a stop has cut the validation short."""
        if not self.trainer.interrupted:
            self.validated_at = self.global_step
            means = {key: metric.compute() for key, metric in self.validated.items()}
            # The same in all processes; sync_dist tells Lightning so.
            self.log_dict({f"val/{key}": value for key, value in means.items() if value is not None}, sync_dist=True)
        for metric in self.validated.values():
            metric.reset()

    # ---- optimization

    def _trainable(self, quantiles: bool) -> list[nn.Parameter]:
        return [p for n, p in self.net.named_parameters() if n.endswith(".quantiles") == quantiles and p.requires_grad]

    def configure_optimizers(self) -> Any:
        """Return optimizer and schedule; ``.quantiles``, where there are any, are a group with a constant rate."""
        groups: list[dict[str, Any]] = [{"params": self._trainable(quantiles=False), "lr": self.lr}]
        factors = [lambda step: self.schedule(self.progress(step))]
        if quantiles := self._trainable(quantiles=True):
            groups.append({"params": quantiles, "lr": self.aux_lr, "weight_decay": 0.0})
            factors.append(lambda step: 1.0)
        optimizer = self.make_optimizer(groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def progress(self, step: int) -> float:
        """Return the share of the run done after ``step`` steps: of all steps or, if larger, of the time cap."""
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
        """Clip the gradients of the network's parameters, but not of the quantiles, whose loss has its own scale."""
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._trainable(quantiles=False), self.clip_norm)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilding the network needs, as plain values.

        Raises:
            NonFiniteError: a weight is NaN or infinite; the earlier checkpoint must not be replaced by this one.
        """
        if not all(torch.isfinite(p).all() for p in self.net.parameters()):
            raise NonFiniteError(f"the weights are no longer finite at step {self.global_step}")
        checkpoint["model_config"] = _plain(self.net.config)
        checkpoint.update(_plain(asdict(self.criterion.objective)))
        checkpoint["name"] = str(self.name)


class EnhancementModule(CompressionModule):
    """Train the enhancer of a network by the distortion alone; the compression network is frozen (paper, section 5).

    The frozen part stays in evaluation mode, so that the enhancer sees what it sees in a decoder: I's output from
    rounded latents. The loss is the distortion term of Eq. 7. Validation is that of the whole network.

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
        """Set the enhancer to training mode; the frozen part stays in evaluation mode."""
        super().train(mode)
        self.net.eval()
        assert self.net.enhancer is not None
        self.net.enhancer.train(mode)
        return self

    def training_loss(
        self, batch: Tensor, target: Tensor, crops: Crops | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the distortion term, the final output and the loss to log; the rates do not change."""
        # A model of all rates trains at one random quality in each batch.
        net = self.net if self.net.quality is None else self.net.at(float(torch.empty(()).uniform_(LOWEST, HIGHEST)))
        with torch.no_grad():
            x_mid = net.synthesise(net.latents(batch), (batch.shape[-2], batch.shape[-1]))
        x_hat = self.net.enhance(x_mid if crops is None else crops.pixels(x_mid))
        with torch.autocast(self.device.type, enabled=False):
            loss = self.criterion.distortion_term(x_hat, target)
        return loss, x_hat, {"loss": loss.detach()}


def _metrics(suffix: str) -> dict[str, nn.Module]:
    rates = {f"{key}{suffix}": MeanOverImages() for key in ("loss", "bpp", "bpp_y", "bpp_z")}
    return {**rates, f"psnr{suffix}": Psnr(), f"ms_ssim{suffix}": MsSsim()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
