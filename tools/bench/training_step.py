"""One training step of our network and of CompressAI's ``mbt2018``, with one interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from compressai.losses import RateDistortionLoss as CompressAILoss
from compressai.models import JointAutoregressiveHierarchicalPriors
from torch import Tensor

from jointiq.models import build_model
from jointiq.runtime import tf32
from jointiq.training.assemble import set_training_layout
from jointiq.training.modules.compression import CompressionModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import constant
from tools.bench.modes import Mode

#: The balance of both losses, the same one: 0.0073 in CompressAI's form.
LMBDA, COMPRESSAI_LMBDA = 0.12, 0.0073
LEARNING_RATE = 1e-4


class TrainingStep(Protocol):
    """A network with its loss and optimizer."""

    def __call__(self, batch: Tensor) -> None:
        """Do forward, loss, backward and update for patches (B, 3, H, W) uint8 on the network's device."""
        ...


class OurStep:
    """The step of :class:`CompressionModule`, without Lightning's loop around it."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, mode: Mode) -> None:
        torch.manual_seed(0)
        net = build_model(config)
        set_training_layout(net, device, "bf16-mixed" if mode.bf16 else "32-true")
        module = CompressionModule(net, RateDistortionLoss(LMBDA), constant(), lr=LEARNING_RATE)
        self.module = module.to(device).train()
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.device, self.mode = device, mode
        if mode.compile:
            net.compile()

    def __call__(self, batch: Tensor) -> None:
        with tf32(self.mode.tf32):
            with self.mode.autocast(self.device):
                images = self.module.on_after_batch_transfer(batch, 0)
                loss, _, _ = self.module.training_loss(images, images, None)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class Mbt2018Step:
    """The step of CompressAI's own training script: its loss, Adam, and a second optimizer for the quantiles."""

    def __init__(self, N: int, M: int, device: torch.device, mode: Mode) -> None:
        torch.manual_seed(0)
        self.net = JointAutoregressiveHierarchicalPriors(N, M).to(device).train()
        self.criterion = CompressAILoss(lmbda=COMPRESSAI_LMBDA)
        named = dict(self.net.named_parameters())
        main = [parameter for name, parameter in named.items() if not name.endswith(".quantiles")]
        quantiles = [parameter for name, parameter in named.items() if name.endswith(".quantiles")]
        fused = True if device.type == "cuda" else None
        self.optimizer = torch.optim.Adam(main, lr=LEARNING_RATE, fused=fused)
        self.aux_optimizer = torch.optim.Adam(quantiles, lr=1e-3, fused=fused)
        self.device, self.mode = device, mode
        if mode.compile:
            self.net.compile()

    def __call__(self, batch: Tensor) -> None:
        x = batch.float() / 255
        with tf32(self.mode.tf32):
            self.optimizer.zero_grad()
            self.aux_optimizer.zero_grad()
            with self.mode.autocast(self.device):
                loss = self.criterion(self.net(x), x)["loss"]
            loss.backward()
            self.optimizer.step()
            self.net.aux_loss().backward()
            self.aux_optimizer.step()
