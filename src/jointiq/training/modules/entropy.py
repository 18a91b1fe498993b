"""LightningModule of ``stage=entropy``: train the entropy model alone, with g_a and g_s frozen.

The distortion does not change, so that entropy models are compared at equal PSNR.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jointiq.data import LATENT
from jointiq.errors import ConfigError
from jointiq.models.base import LearnedCodec
from jointiq.training.modules.compression import CompressionModule


class EntropyModule(CompressionModule):
    """Train ``net.entropy_model`` by the rate term of Eq. 7, on latents y instead of images; all else is frozen.

    Validation is that of the whole network on whole images.

    Args: as :class:`CompressionModule`.

    Raises:
        ConfigError: the model has no entropy model that can be trained by itself.
    """

    def __init__(self, net: LearnedCodec, *args: Any, **options: Any) -> None:
        super().__init__(net, *args, **options)
        if net.entropy_model is None or any(net.is_decoder(name) for name in net.entropy_model.state_dict()):
            allowed = "with stage=entropy, a model whose picture its entropy model does not take part in"
            raise ConfigError("model.name", net.config["name"], allowed)
        net.requires_grad_(False)
        net.entropy_model.requires_grad_(True)

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """Return float32 latents (B, M, h, w) unchanged; scale validation images to [0, 1]."""
        return batch if batch.is_floating_point() else super().on_after_batch_transfer(batch, dataloader_idx)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch of unrounded y, (B, M, h, w)."""
        assert self.net.entropy_model is not None
        log_likelihoods, _ = self.net.entropy_model(batch)
        with torch.autocast(self.device.type, enabled=False):
            pixels = (batch.shape[-2] * LATENT, batch.shape[-1] * LATENT)
            terms = self.criterion.rate_terms(log_likelihoods, pixels)
        if self.is_logged():
            values = {"loss": terms.loss.detach(), "bpp": terms.bpp, "bpp_y": terms.bpp_y, "bpp_z": terms.bpp_z}
            self.log_step(values, batch.shape[0])
        return terms.loss
